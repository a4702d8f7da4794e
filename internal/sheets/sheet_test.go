package sheets

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	api "google.golang.org/api/sheets/v4"
)

// A paper is a spreadsheet in memory, which answers the calls that a Writer makes as
// Google does, and in which a test can do what a person does, also in the middle of
// a call.
type paper struct {
	mu     sync.Mutex
	sheets []*page
	now    func() time.Time
	calls  map[bool][]time.Time // by whether it writes
	over   int                  // calls beyond the quota

	// before is asked before each call, after it has been counted, and after when it
	// has been carried out; what they return is answered in place of the result. The
	// paper is not locked meanwhile.
	before, after func(method string) *fault
	refuse        func(text string) bool // cells that are answered 400
}

// A fault is an answer other than the right one: a status, or none at all (0).
type fault struct {
	status int
	header http.Header
}

type page struct {
	id         int64
	title      string
	rows, cols int
	cells      [][]any // ragged
}

func newPaper(now func() time.Time) *paper {
	return &paper{now: now, calls: map[bool][]time.Time{}}
}

// RoundTrip makes a paper a transport, so that a call needs no socket.
func (p *paper) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	method := r.Method + " " + regexp.MustCompile(`[^/]*$`).FindString(r.URL.Path)
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	writes := r.Method == http.MethodPost
	now := p.now()
	recent := p.calls[writes]
	for len(recent) > 0 && now.Sub(recent[0]) >= time.Minute {
		recent = recent[1:]
	}
	full := len(recent) >= 60
	if full {
		p.over++
	} else {
		recent = append(recent, now)
	}
	p.calls[writes] = recent
	p.mu.Unlock()
	if full {
		return answer(r, 429, nil, `{"error":{"code":429,"message":"Quota exceeded","status":"RESOURCE_EXHAUSTED"}}`)
	}
	if p.before != nil {
		if f := p.before(method); f != nil {
			return failed(r, f)
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	status, result := p.serve(method, r, body)
	if p.after != nil {
		if f := p.after(method); f != nil {
			return failed(r, f)
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return answer(r, status, nil, result)
}

func failed(r *http.Request, f *fault) (*http.Response, error) {
	if f.status == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return answer(r, f.status, f.header, fmt.Sprintf(`{"error":{"code":%d,"message":"as the test wants"}}`, f.status))
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

func (p *paper) serve(method string, r *http.Request, body []byte) (status int, result string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out any
	var err error
	switch {
	case strings.HasSuffix(method, "GET values:batchGet"):
		out, err = p.batchGet(r.URL.Query()["ranges"])
	case strings.HasSuffix(method, "POST values:batchUpdate"):
		out, err = p.putValues(body)
	case strings.HasSuffix(method, ":batchUpdate"):
		out, err = p.reshape(body)
	default:
		var s api.Spreadsheet
		for _, g := range p.sheets {
			s.Sheets = append(s.Sheets, &api.Sheet{Properties: &api.SheetProperties{SheetId: g.id, Title: g.title,
				GridProperties: &api.GridProperties{RowCount: int64(g.rows), ColumnCount: int64(g.cols)}}})
		}
		out = s
	}
	if err != nil {
		return 400, fmt.Sprintf(`{"error":{"code":400,"message":%q,"status":"INVALID_ARGUMENT"}}`, err)
	}
	data, err := json.Marshal(out)
	if err != nil {
		return 500, err.Error()
	}
	return 200, string(data)
}

var a1 = regexp.MustCompile(`^'([^']+)'!([A-Z]+)(\d*):([A-Z]+)(\d*)$`)

// parse reads a range: rows and columns from 0, the last ones excluded.
func (p *paper) parse(s string) (g *page, row, col, lastRow, lastCol int, err error) {
	m := a1.FindStringSubmatch(s)
	if m == nil || p.page(m[1]) == nil {
		return nil, 0, 0, 0, 0, fmt.Errorf("Unable to parse range: %s", s) //nolint
	}
	g = p.page(m[1])
	letters := func(s string) (n int) {
		for _, c := range s {
			n = n*26 + int(c-'A') + 1
		}
		return n
	}
	col, lastCol, lastRow = letters(m[2])-1, letters(m[4]), g.rows
	if m[3] != "" {
		row, _ = strconv.Atoi(m[3])
		row--
	}
	if m[5] != "" {
		lastRow, _ = strconv.Atoi(m[5])
	}
	if lastRow > g.rows || lastCol > g.cols || row >= lastRow || col >= lastCol {
		return nil, 0, 0, 0, 0, fmt.Errorf("Range (%s) exceeds grid limits. Max rows: %d, max columns: %d", s, g.rows, g.cols)
	}
	return g, row, col, lastRow, lastCol, nil
}

func (p *paper) page(title string) *page {
	for _, g := range p.sheets {
		if g.title == title {
			return g
		}
	}
	return nil
}

func (p *paper) batchGet(ranges []string) (any, error) {
	out := &api.BatchGetValuesResponse{}
	for _, s := range ranges {
		g, row, col, lastRow, lastCol, err := p.parse(s)
		if err != nil {
			return nil, err
		}
		v := &api.ValueRange{Range: s, MajorDimension: "ROWS"}
		for r := row; r < min(lastRow, len(g.cells)); r++ {
			var cells []any
			for c := col; c < min(lastCol, len(g.cells[r])); c++ {
				cell := g.cells[r][c]
				if cell == nil {
					cell = ""
				}
				cells = append(cells, cell)
			}
			for len(cells) > 0 && cells[len(cells)-1] == "" {
				cells = cells[:len(cells)-1]
			}
			v.Values = append(v.Values, cells)
		}
		for len(v.Values) > 0 && len(v.Values[len(v.Values)-1]) == 0 {
			v.Values = v.Values[:len(v.Values)-1]
		}
		out.ValueRanges = append(out.ValueRanges, v)
	}
	return out, nil
}

func (p *paper) putValues(body []byte) (any, error) {
	var req api.BatchUpdateValuesRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, err
	}
	if req.ValueInputOption != "RAW" {
		return nil, fmt.Errorf("valueInputOption %q", req.ValueInputOption)
	}
	for _, apply := range []bool{false, true} { // all or nothing
		for _, v := range req.Data {
			g, row, col, lastRow, lastCol, err := p.parse(v.Range)
			if err != nil {
				return nil, err
			}
			if len(v.Values) > lastRow-row {
				return nil, fmt.Errorf("%d rows for %s", len(v.Values), v.Range)
			}
			for r, cells := range v.Values {
				if len(cells) > lastCol-col {
					return nil, fmt.Errorf("%d columns for %s", len(cells), v.Range)
				}
				for c, cell := range cells {
					if s, ok := cell.(string); ok && (len([]rune(s)) > maxCell || p.refuse != nil && p.refuse(s)) {
						return nil, fmt.Errorf("Invalid value") //nolint
					}
					if apply && cell != nil {
						g.set(row+r, col+c, cell)
					}
				}
			}
		}
	}
	return &api.BatchUpdateValuesResponse{}, nil
}

func (p *paper) reshape(body []byte) (any, error) {
	var req api.BatchUpdateSpreadsheetRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, err
	}
	for _, q := range req.Requests {
		switch {
		case q.AddSheet != nil:
			s := q.AddSheet.Properties
			if p.page(s.Title) != nil {
				return nil, fmt.Errorf("a sheet with the name %q already exists", s.Title)
			}
			p.sheets = append(p.sheets, &page{id: int64(len(p.sheets)), title: s.Title,
				rows: int(s.GridProperties.RowCount), cols: int(s.GridProperties.ColumnCount)})
		case q.AppendDimension != nil && q.AppendDimension.Dimension == "ROWS":
			p.sheets[q.AppendDimension.SheetId].rows += int(q.AppendDimension.Length)
		case q.AppendDimension != nil:
			p.sheets[q.AppendDimension.SheetId].cols += int(q.AppendDimension.Length)
		case q.InsertDimension != nil && q.InsertDimension.Range.Dimension == "ROWS":
			p.sheets[q.InsertDimension.Range.SheetId].insertRow(int(q.InsertDimension.Range.StartIndex))
		case q.InsertDimension != nil:
			p.sheets[q.InsertDimension.Range.SheetId].insertColumn(int(q.InsertDimension.Range.StartIndex))
		default:
			return nil, fmt.Errorf("unknown request")
		}
	}
	return &api.BatchUpdateSpreadsheetResponse{}, nil
}

// What a person does, rows and columns from 0.

func (g *page) set(row, col int, v any) {
	for len(g.cells) <= row {
		g.cells = append(g.cells, nil)
	}
	for len(g.cells[row]) <= col {
		g.cells[row] = append(g.cells[row], nil)
	}
	g.cells[row][col] = v
}

func (g *page) text(row, col int) string {
	if row < len(g.cells) && col < len(g.cells[row]) {
		return text(g.cells[row][col])
	}
	return ""
}

func (g *page) insertRow(at int) {
	g.rows++
	if at < len(g.cells) {
		g.cells = append(g.cells[:at], append([][]any{nil}, g.cells[at:]...)...)
	}
}

func (g *page) deleteRow(at int) {
	g.rows--
	if at < len(g.cells) {
		g.cells = append(g.cells[:at], g.cells[at+1:]...)
	}
}

func (g *page) insertColumn(at int) {
	g.cols++
	for r, row := range g.cells {
		if at < len(row) {
			g.cells[r] = append(row[:at], append([]any{nil}, row[at:]...)...)
		}
	}
}

func (g *page) deleteColumn(at int) {
	g.cols--
	for r, row := range g.cells {
		if at < len(row) {
			g.cells[r] = append(row[:at], row[at+1:]...)
		}
	}
}

// table gives the rows below the header as maps from heading to text, blank rows
// left out.
func (g *page) table() []map[string]string {
	var out []map[string]string
	for r := 1; r < len(g.cells); r++ {
		row := map[string]string{}
		for c := range g.cells[r] {
			if t := g.text(r, c); t != "" {
				row[g.text(0, c)] = t
			}
		}
		if len(row) > 0 {
			out = append(out, row)
		}
	}
	return out
}
