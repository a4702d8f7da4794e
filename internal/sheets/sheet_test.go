package sheets

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	api "google.golang.org/api/sheets/v4"

	"leadpipe/internal/sandbox/google"
)

// A paper is the stand-in's spreadsheet without a socket between, so that a test can
// do something in the middle of any call, and gets the same history each time.
type paper struct {
	*google.Server
	// before is asked before each call and after when it has been carried out; what
	// they return is answered in place of the result.
	before, after func(method string) *mishap
	busy          bool   // in the middle of a call
	refuse        string // a text that no cell takes
	// withoutNames is answered to requests for named ranges; nil: they are carried out.
	withoutNames *mishap
	// late are calls that are still on their way when their caller has given them up.
	late []func()
}

// A mishap is an answer other than the right one: a status, or none at all (0).
type mishap struct {
	status int
	header http.Header
	late   bool // carried out when land is called
}

func newPaper(tb testing.TB, now func() time.Time) *paper {
	tb.Helper()
	s, err := google.New(google.Options{Spreadsheets: []string{"sheet1"}, Now: now, Seed: 1})
	if err != nil {
		tb.Fatal(err)
	}
	return &paper{Server: s}
}

// RoundTrip makes a paper a transport. Google sees a call through whether or not
// the caller is still there.
func (p *paper) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	method := r.Method + " " + r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	if p.before != nil {
		if f := p.before(method); f != nil {
			if f.late {
				p.late = append(p.late, func() { p.serve(r, body) })
			}
			return f.answer(r)
		}
	}
	if p.refuse != "" && bytes.Contains(body, []byte(p.refuse)) {
		return answer(r, 400, nil, `{"error":{"code":400,"message":"Invalid data[1]: the value is not taken, says lea@example.com","status":"INVALID_ARGUMENT"}}`)
	}
	if p.withoutNames != nil && bytes.Contains(body, []byte("NamedRange")) {
		return p.withoutNames.answer(r)
	}
	rec := p.serve(r, body)
	if p.after != nil {
		if f := p.after(method); f != nil {
			return f.answer(r)
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	res := rec.Result()
	res.Request = r
	return res, nil
}

func (p *paper) serve(r *http.Request, body []byte) *httptest.ResponseRecorder {
	q := r.Clone(context.WithoutCancel(r.Context()))
	q.RequestURI = r.URL.RequestURI()
	q.Body = io.NopCloser(bytes.NewReader(body))
	q.Header.Set("Authorization", "Bearer "+p.Token())
	rec := httptest.NewRecorder()
	p.ServeHTTP(rec, q)
	return rec
}

// land has all late calls arrive.
func (p *paper) land() {
	for _, call := range p.late {
		call()
	}
	p.late = nil
}

func (f *mishap) answer(r *http.Request) (*http.Response, error) {
	if f.status == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return answer(r, f.status, f.header, `{"error":{"message":"lea@example.com","code":`+http.StatusText(f.status)+`}}`)
}

func answer(r *http.Request, status int, h http.Header, body string) (*http.Response, error) {
	rec := httptest.NewRecorder()
	for k, v := range h {
		rec.Header()[k] = v
	}
	rec.Header().Set("Content-Type", "application/json")
	rec.WriteHeader(status)
	_, _ = rec.WriteString(body)
	res := rec.Result()
	res.Request = r
	return res, nil
}

// Hands have one tab under a person's hands; rows and columns count from 0, the
// header is row 0.
type hands struct {
	tb    testing.TB
	paper *paper
	title string
}

func (p *paper) page(tb testing.TB, title string) hands { return hands{tb, p, title} }

func (g hands) must(err error) {
	g.tb.Helper()
	if err != nil {
		g.tb.Fatal(err)
	}
}

func (g hands) cells() [][]string             { return g.paper.Rows(g.title) }
func (g hands) set(row, col int, text string) { g.must(g.paper.SetCell(g.title, row+1, col+1, text)) }
func (g hands) insertRow(at int)              { g.must(g.paper.InsertRow(g.title, at+1)) }
func (g hands) deleteRow(at int)              { g.must(g.paper.DeleteRow(g.title, at+1)) }
func (g hands) insertColumn(at int)           { g.must(g.paper.InsertColumn(g.title, at+1)) }
func (g hands) sortDown(col int)              { g.must(g.paper.SortBy(g.title, col+1, true)) }
func (g hands) clear()                        { g.must(g.paper.Clear(g.title)) }
func (g hands) shuffle(seed uint64) {
	g.must(g.paper.Shuffle(g.title, rand.New(rand.NewPCG(seed, 0))))
}

// notes adds a person's own column, and gives its place.
func (g hands) notes() int {
	at, err := g.paper.AddColumn(g.title, "Notes")
	g.must(err)
	return at - 1
}

// text is what a cell shows.
func (g hands) text(row, col int) string {
	if rows := g.cells(); row < len(rows) && col >= 0 && col < len(rows[row]) {
		return rows[row][col]
	}
	return ""
}

// table gives the rows below the header as maps from heading to text, blank rows
// left out.
func (g hands) table() []map[string]string {
	rows := g.cells()
	var out []map[string]string
	for _, cells := range rows[min(1, len(rows)):] {
		row := map[string]string{}
		for c, t := range cells {
			if t != "" && c < len(rows[0]) {
				row[rows[0][c]] = t
			}
		}
		if len(row) > 0 {
			out = append(out, row)
		}
	}
	return out
}

// addTab makes a plain tab.
func (p *paper) addTab(w *Writer, title string) (int64, error) {
	r, err := w.client.svc.Spreadsheets.BatchUpdate("sheet1", &api.BatchUpdateSpreadsheetRequest{Requests: []*api.Request{
		{AddSheet: &api.AddSheetRequest{Properties: &api.SheetProperties{Title: title}}}}}).Do()
	if err != nil {
		return 0, err
	}
	return r.Replies[0].AddSheet.Properties.SheetId, nil
}
