package google_test

import (
	stdcmp "cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	api "google.golang.org/api/sheets/v4"

	"leadpipe/internal/sandbox/google"
)

// A bench is a stand-in that is being served, and Google's own client of it.
type bench struct {
	*google.Server
	url    string
	client *api.SpreadsheetsService
}

// start serves a stand-in without quotas, unless opt sets them.
func start(tb testing.TB, opt google.Options) bench {
	tb.Helper()
	if opt.Spreadsheets == nil {
		opt.Spreadsheets = []string{"book"}
	}
	if opt.ReadsPerMinute == 0 {
		opt.ReadsPerMinute, opt.WritesPerMinute = google.Unlimited, google.Unlimited
	}
	s, err := google.New(opt)
	if err != nil {
		tb.Fatal(err)
	}
	ts := httptest.NewServer(s)
	tb.Cleanup(ts.Close)
	tokens := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: s.Token()})
	return bench{s, ts.URL, newClient(tb, ts.URL, option.WithTokenSource(tokens))}
}

func newClient(tb testing.TB, url string, opts ...option.ClientOption) *api.SpreadsheetsService {
	tb.Helper()
	svc, err := api.NewService(context.WithoutCancel(tb.Context()), append(opts, option.WithEndpoint(url))...)
	if err != nil {
		tb.Fatal(err)
	}
	return svc.Spreadsheets
}

func (b bench) write(name, option string, rows ...[]any) error {
	_, err := b.client.Values.Update("book", name, &api.ValueRange{Values: rows}).ValueInputOption(option).Do()
	return err
}

func (b bench) change(requests ...*api.Request) (*api.BatchUpdateSpreadsheetResponse, error) {
	return b.client.BatchUpdate("book", &api.BatchUpdateSpreadsheetRequest{Requests: requests}).Do()
}

// raw makes a call without Google's client.
func (b bench) raw(tb testing.TB, method, path, token, body string) (int, string) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// wantError checks that Google's client understood an error.
func wantError(tb testing.TB, name string, err error, code int, message string) {
	tb.Helper()
	var g *googleapi.Error
	if !errors.As(err, &g) {
		tb.Errorf("%s: %v; want HTTP %d", name, err, code)
		return
	}
	if g.Code != code || !strings.Contains(g.Message, message) || g.Message == "" {
		tb.Errorf("%s: HTTP %d %q; want HTTP %d %q", name, g.Code, g.Message, code, message)
	}
}

func wantRows(tb testing.TB, name string, got, want [][]string) {
	tb.Helper()
	if d := cmp.Diff(want, got); d != "" {
		tb.Errorf("%s (-want +got):\n%s", name, d)
	}
}

func addSheet(title string) *api.Request {
	return &api.Request{AddSheet: &api.AddSheetRequest{Properties: &api.SheetProperties{Title: title}}}
}

func rows(start, end int64) *api.DimensionRange {
	return &api.DimensionRange{Dimension: "ROWS", StartIndex: start, EndIndex: end}
}

func columns(start, end int64) *api.DimensionRange {
	return &api.DimensionRange{Dimension: "COLUMNS", StartIndex: start, EndIndex: end}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]google.Options{
		"no spreadsheet":   {},
		"empty id":         {Spreadsheets: []string{""}},
		"latency backward": {Spreadsheets: []string{"book"}, MinLatency: 2, MaxLatency: 1},
	} {
		if _, err := google.New(opt); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	odd := "émoji 👩‍👩‍👧 \u202eعربي\u202c\nsecond line\t'quoted' \\ \u00a0"
	cases := map[string]struct {
		option    string
		in        any
		formatted string
		plain     any // unformatted
		formula   any
	}{
		"raw formula stays a text":         {"RAW", "=1+1", "=1+1", "=1+1", "=1+1"},
		"raw plus sign stays a text":       {"RAW", "+33639980000", "+33639980000", "+33639980000", "+33639980000"},
		"raw leading zero stays":           {"RAW", "0639980000", "0639980000", "0639980000", "0639980000"},
		"raw date stays a text":            {"RAW", "2026-11-23", "2026-11-23", "2026-11-23", "2026-11-23"},
		"raw apostrophe stays":             {"RAW", "'quoted", "'quoted", "'quoted", "'quoted"},
		"raw text is kept to the last bit": {"RAW", odd, odd, odd, odd},
		"raw number keeps its type":        {"RAW", 1234.5, "1234.5", 1234.5, 1234.5},
		"raw large number":                 {"RAW", 33639980000, "33639980000", 33639980000.0, 33639980000.0},
		"raw boolean keeps its type":       {"RAW", true, "TRUE", true, true},
		"entered formula is computed":      {"USER_ENTERED", "=1+1", google.FormulaResult, google.FormulaResult, "=1+1"},
		"entered phone becomes a number":   {"USER_ENTERED", "+33639980000", "33639980000", 33639980000.0, 33639980000.0},
		"entered leading zero is lost":     {"USER_ENTERED", "0639980000", "639980000", 639980000.0, 639980000.0},
		"entered plus sign and a letter":   {"USER_ENTERED", "+A1", google.FormulaResult, google.FormulaResult, "=+A1"},
		"entered date":                     {"USER_ENTERED", "1900-01-01", "1900-01-01", 2.0, 2.0},
		"entered boolean":                  {"USER_ENTERED", "true", "TRUE", true, true},
		"entered apostrophe makes a text":  {"USER_ENTERED", "'=1+1", "=1+1", "=1+1", "=1+1"},
		"entered thousands":                {"USER_ENTERED", "1,234", "1234", 1234.0, 1234.0},
		"entered text":                     {"USER_ENTERED", "Zoé", "Zoé", "Zoé", "Zoé"},
	}
	for name, c := range cases {
		must(t, b.write("B2", c.option, []any{c.in}))
		for render, want := range map[string]any{"FORMATTED_VALUE": c.formatted, "UNFORMATTED_VALUE": c.plain, "FORMULA": c.formula} {
			got, err := b.client.Values.Get("book", "B2").ValueRenderOption(render).Do()
			must(t, err)
			if d := cmp.Diff([][]any{{want}}, got.Values); d != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, render, d)
			}
		}
	}
	must(t, b.write("B2", "USER_ENTERED", []any{"2026-11-23"}))
	got, err := b.client.Values.Get("book", "B2").ValueRenderOption("UNFORMATTED_VALUE").DateTimeRenderOption("FORMATTED_STRING").Do()
	must(t, err)
	if d := cmp.Diff([][]any{{"2026-11-23"}}, got.Values); d != "" {
		t.Errorf("date as a string (-want +got):\n%s", d)
	}
}

func TestNullSkipsAndEmptyClears(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	must(t, b.write("A1:C2", "RAW", []any{"a", "b", "c"}, []any{"d", "e", "f"}))
	must(t, b.write("A1:C2", "RAW", []any{nil, "", "C"}, []any{"D"}))
	wantRows(t, "after", b.Rows("Sheet1"), [][]string{{"a", "", "C"}, {"D", "e", "f"}})
}

func TestReadTrims(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	must(t, b.write("A1", "RAW", []any{"a", ""}, []any{""}, []any{"", "b", ""}, []any{"", ""}))
	for name, want := range map[string]string{
		"/values/A1:C9":                        `{"majorDimension":"ROWS","range":"Sheet1!A1:C9","values":[["a"],[],["","b"]]}`,
		"/values/A1:C9?majorDimension=COLUMNS": `{"majorDimension":"COLUMNS","range":"Sheet1!A1:C9","values":[["a"],["","","b"]]}`,
		"/values/D:D":                          `{"majorDimension":"ROWS","range":"Sheet1!D1:D1000"}`,
	} {
		if status, body := b.raw(t, "GET", "/v4/spreadsheets/book"+name, b.Token(), ""); status != 200 || body != want {
			t.Errorf("%s: HTTP %d\n got %s\nwant %s", name, status, body, want)
		}
	}
	_, err := b.client.Values.Update("book", "B5", &api.ValueRange{MajorDimension: "COLUMNS", Values: [][]any{{"x", "y"}, {"z"}}}).ValueInputOption("RAW").Do()
	must(t, err)
	wantRows(t, "columns written", b.Rows("Sheet1")[4:], [][]string{{"", "x", "z"}, {"", "y"}})
}

func TestRanges(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	for _, title := range []string{"Leads é", "Opt-outs", "It's", "A1", "a/b:append"} {
		_, err := b.change(addSheet(title))
		must(t, err)
	}
	const unparsable, beyond = "Unable to parse range: ", " exceeds grid limits. Max rows: 1000, max columns: 26"
	cases := map[string]string{
		"A1": "Sheet1!A1", "b2": "Sheet1!B2", "$B$2": "Sheet1!B2", "A1:B2": "Sheet1!A1:B2", "B2:A1": "Sheet1!A1:B2",
		"A:A": "Sheet1!A1:A1000", "A2:C": "Sheet1!A2:C1000", "A5:E5": "Sheet1!A5:E5", "2:3": "Sheet1!A2:Z3", "B2:3": "Sheet1!B2:Z3",
		"Sheet1": "Sheet1!A1:Z1000", "sheet1!A:B": "Sheet1!A1:B1000", "'Sheet1'!A1": "Sheet1!A1",
		"Leads é!A1": "'Leads é'!A1", "'Leads é'!A:A": "'Leads é'!A1:A1000", "'Leads é'": "'Leads é'!A1:Z1000",
		"Opt-outs!A1:A1": "'Opt-outs'!A1", "'It''s'!A1": "'It''s'!A1", "'A1'!B2": "'A1'!B2", "'A1'": "'A1'!A1:Z1000",
		"'a/b:append'!B2": "'a/b:append'!B2",
		"Z999:AB1005":     "Sheet1!Z999:Z1000", // a read is cut to the grid
		"Nope!A1":         unparsable + "Nope!A1",
		"'Nope'":          unparsable + "'Nope'",
		"Sheet1!A":        unparsable + "Sheet1!A",
		"Sheet1!7":        unparsable + "Sheet1!7",
		"Sheet1!A0":       unparsable + "Sheet1!A0",
		"Sheet1!":         unparsable + "Sheet1!",
		"!A1":             unparsable + "!A1",
		"'Sheet1!A1":      unparsable + "'Sheet1!A1",
		"'Sheet1'A1":      unparsable + "'Sheet1'A1",
		"A1:B2:C3":        unparsable + "A1:B2:C3",
		"A:":              unparsable + "A:",
		"Sheet1!A1:[5":    unparsable + "Sheet1!A1:[5",
		"A1001:J1001":     "Range (Sheet1!A1001:J1001)" + beyond,
		"AA1":             "Range (Sheet1!AA1)" + beyond,
		"'Opt-outs'!A1001": "Range ('Opt-outs'!A1001)" +
			beyond,
	}
	for name, want := range cases {
		got, err := b.client.Values.Get("book", name).Do()
		if strings.HasPrefix(want, unparsable) || strings.HasSuffix(want, beyond) {
			var g *googleapi.Error
			if !errors.As(err, &g) || g.Code != 400 || g.Message != want {
				t.Errorf("%s: %v; want %s", name, err, want)
			}
		} else if err != nil || got.Range != want {
			t.Errorf("%s: %+v %v; want %s", name, got, err, want)
		}
	}
}

func TestWriteStaysInRangeAndGrid(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	wide, tall := make([]any, 27), make([][]any, 1001)
	for i := range wide {
		wide[i] = "x"
	}
	for i := range tall {
		tall[i] = []any{"x"}
	}
	cases := map[string]struct {
		name, option string
		values       [][]any
		message      string // "" is taken
	}{
		"single cell is the corner":        {"B2", "RAW", [][]any{{"a", "b"}, {"c"}}, ""},
		"fewer values than the range":      {"A1:C3", "RAW", [][]any{{"a"}}, ""},
		"last row":                         {"A1000:Z1000", "RAW", [][]any{{"a"}}, ""},
		"50,000 characters":                {"A1", "RAW", [][]any{{strings.Repeat("é", 50000)}}, ""},
		"more columns than the range":      {"A3:B113", "RAW", [][]any{{"a", "b", "c"}}, "Requested writing within range [Sheet1!A3:B113], but tried writing to column [C]"},
		"more rows than the range":         {"A5:E5", "RAW", [][]any{{"a"}, {"b"}}, "Requested writing within range [Sheet1!A5:E5], but tried writing to row [6]"},
		"open range is closed to one side": {"A2:C", "RAW", [][]any{{1, 2, 3, 4}}, "tried writing to column [D]"},
		"row beyond the grid":              {"A1001:J1001", "RAW", [][]any{{"a"}}, "Range (Sheet1!A1001:J1001) exceeds grid limits. Max rows: 1000, max columns: 26"},
		"range that ends beyond":           {"A999:A1001", "RAW", [][]any{{"a"}}, "Range (Sheet1!A999:A1001) exceeds grid limits"},
		"corner and too wide":              {"A1", "RAW", [][]any{wide}, "Range (Sheet1!A1:AA1) exceeds grid limits"},
		"whole sheet and too tall":         {"Sheet1", "RAW", tall, "tried writing to row [1001]"},
		"50,001 characters":                {"A1", "RAW", [][]any{{strings.Repeat("é", 50001)}}, "Your input contains more than the maximum of 50000 characters in a single cell."},
		"50,001 UTF-16 units":              {"A1", "RAW", [][]any{{strings.Repeat("😀", 25000) + "a"}}, "maximum of 50000 characters"},
		"list in a cell":                   {"A1", "RAW", [][]any{{[]string{"a"}}}, "Invalid values[0][0]: list_value"},
		"object in a cell":                 {"A1", "RAW", [][]any{{map[string]string{"a": "b"}}}, "Invalid values[0][0]: struct_value"},
		"no input option":                  {"A1", "", [][]any{{"a"}}, "'valueInputOption' is required but not specified"},
		"unknown input option":             {"A1", "AS_IS", [][]any{{"a"}}, "Invalid value at 'value_input_option'"},
		"unknown tab":                      {"Leads!A1", "RAW", [][]any{{"a"}}, "Unable to parse range: Leads!A1"},
	}
	for name, c := range cases {
		must(t, b.Clear("Sheet1"))
		err := b.write(c.name, c.option, c.values...)
		if c.message == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		wantError(t, name, err, 400, c.message)
		wantRows(t, name, b.Rows("Sheet1"), [][]string{})
	}
}

func TestBatchUpdateValues(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	_, err := b.change(addSheet("Opt-outs"))
	must(t, err)
	data := []*api.ValueRange{
		{Range: "Sheet1!A1:B2", Values: [][]any{{"a", nil}, {"b", 1}}},
		{Range: "'Opt-outs'!B2", Values: [][]any{{"c"}}},
		{Range: "Sheet1!A2", Values: [][]any{{"later wins"}}},
	}
	got, err := b.client.Values.BatchUpdate("book", &api.BatchUpdateValuesRequest{ValueInputOption: "RAW", Data: data}).Do()
	must(t, err)
	if got.TotalUpdatedCells != 5 || got.TotalUpdatedRows != 4 || got.TotalUpdatedSheets != 2 || len(got.Responses) != 3 ||
		got.Responses[0].UpdatedRange != "Sheet1!A1:B2" || got.Responses[1].UpdatedRange != "'Opt-outs'!B2" {
		t.Errorf("answered %+v", got)
	}
	before := b.Rows("Sheet1")
	wantRows(t, "Sheet1", before, [][]string{{"a"}, {"later wins", "1"}})
	wantRows(t, "Opt-outs", b.Rows("Opt-outs"), [][]string{{}, {"", "c"}})

	for name, last := range map[string]*api.ValueRange{
		"bad range":   {Range: "Nope!A1", Values: [][]any{{"z"}}},
		"beyond":      {Range: "Sheet1!A1001", Values: [][]any{{"z"}}},
		"long text":   {Range: "Sheet1!A3", Values: [][]any{{strings.Repeat("z", 50001)}}},
		"too many":    {Range: "Sheet1!A3:A3", Values: [][]any{{"z", "z"}}},
		"nested list": {Range: "Sheet1!A3", Values: [][]any{{[]any{"z"}}}},
	} {
		batch := []*api.ValueRange{{Range: "Sheet1!A1", Values: [][]any{{"half"}}}, last}
		_, err := b.client.Values.BatchUpdate("book", &api.BatchUpdateValuesRequest{ValueInputOption: "RAW", Data: batch}).Do()
		wantError(t, name, err, 400, "")
		wantRows(t, name+" changes nothing", b.Rows("Sheet1"), before)
	}
}

func TestBatchGet(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	must(t, b.write("A1", "RAW", []any{"id", "n"}, []any{"a", 1}))
	got, err := b.client.Values.BatchGet("book").Ranges("Sheet1!A:A", "B2", "C:C").ValueRenderOption("UNFORMATTED_VALUE").Do()
	must(t, err)
	var values [][][]any
	for _, v := range got.ValueRanges {
		values = append(values, v.Values)
	}
	if d := cmp.Diff([][][]any{{{"id"}, {"a"}}, {{1.0}}, nil}, values); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
	_, err = b.client.Values.BatchGet("book").Ranges("A1", "Nope!A1").Do()
	wantError(t, "one unknown tab", err, 400, "Unable to parse range: Nope!A1")
	_, err = b.client.Values.BatchGet("book").Ranges("A1").MajorDimension("DIAGONAL").Do()
	wantError(t, "unknown dimension", err, 400, "DIAGONAL")
}

func TestAppend(t *testing.T) {
	t.Parallel()
	// The two tables and the ranges of Google's guide to values.append.
	two := [][]any{{"x", "y", "z"}, {"x", "y", "z"}, nil, {nil, "x", "y", "z"}, {nil, "x", "y"}, {nil, "x"}}
	cases := map[string]struct{ at, insert, table, updated string }{
		"whole sheet: the last table":     {"Sheet1", "", "Sheet1!B4:D6", "Sheet1!B7:C7"},
		"a cell of the last table":        {"B4", "", "Sheet1!B4:D6", "Sheet1!B7:C7"},
		"another cell of it":              {"C5:D5", "", "Sheet1!B4:D6", "Sheet1!B7:C7"},
		"both tables: the last":           {"B2:D4", "", "Sheet1!B4:D6", "Sheet1!B7:C7"},
		"a cell of the first table":       {"A1", "", "Sheet1!A1:C2", "Sheet1!A3:B3"},
		"the first, with room made":       {"A1", "INSERT_ROWS", "Sheet1!A1:C2", "Sheet1!A3:B3"},
		"no table: where the range says":  {"E10", "", "", "Sheet1!E10:F10"},
		"no table, with rows to be added": {"E10", "INSERT_ROWS", "", "Sheet1!E10:F10"},
	}
	for name, c := range cases {
		b := start(t, google.Options{})
		must(t, b.write("A1", "RAW", two...))
		got, err := b.client.Values.Append("book", c.at, &api.ValueRange{Values: [][]any{{"new", "row"}}}).ValueInputOption("RAW").InsertDataOption(stdcmp.Or(c.insert, "OVERWRITE")).Do()
		must(t, err)
		if got.TableRange != c.table || got.Updates.UpdatedRange != c.updated || got.Updates.UpdatedCells != 2 {
			t.Errorf("%s: table %q, updated %+v; want %q and %q", name, got.TableRange, got.Updates, c.table, c.updated)
		}
		if moved := len(b.Rows("Sheet1")); c.insert != "" && c.table != "" && moved != 7 {
			t.Errorf("%s: %d rows; want the lower table moved down", name, moved)
		}
	}
}

func TestAppendTwiceWritesTwice(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	must(t, b.write("A1000", "RAW", []any{"last"}))
	for range 2 {
		_, err := b.client.Values.Append("book", "A:Z", &api.ValueRange{Values: [][]any{{"again"}}}).ValueInputOption("RAW").InsertDataOption("INSERT_ROWS").Do()
		must(t, err)
	}
	wantRows(t, "below the old end of the grid", b.Rows("Sheet1")[999:], [][]string{{"last"}, {"again"}, {"again"}})
	_, err := b.client.Values.Append("book", "Z1002", &api.ValueRange{Values: [][]any{{"y", "z"}}}).ValueInputOption("RAW").Do()
	wantError(t, "no more columns", err, 400, "exceeds grid limits. Max rows: 1002, max columns: 26")
}

func TestClear(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	must(t, b.write("A1", "RAW", []any{"a", "b"}, []any{"c", "d"}))
	one, err := b.client.Values.Clear("book", "B:B", &api.ClearValuesRequest{}).Do()
	must(t, err)
	if one.ClearedRange != "Sheet1!B1:B1000" {
		t.Errorf("cleared %s", one.ClearedRange)
	}
	wantRows(t, "one column", b.Rows("Sheet1"), [][]string{{"a"}, {"c"}})
	_, err = b.client.Values.BatchClear("book", &api.BatchClearValuesRequest{Ranges: []string{"A1", "Nope!A1"}}).Do()
	wantError(t, "one unknown tab", err, 400, "Nope!A1")
	wantRows(t, "nothing cleared", b.Rows("Sheet1"), [][]string{{"a"}, {"c"}})
	many, err := b.client.Values.BatchClear("book", &api.BatchClearValuesRequest{Ranges: []string{"A1", "2:2"}}).Do()
	must(t, err)
	if d := cmp.Diff([]string{"Sheet1!A1", "Sheet1!A2:Z2"}, many.ClearedRanges); d != "" {
		t.Errorf("cleared (-want +got):\n%s", d)
	}
	wantRows(t, "both", b.Rows("Sheet1"), [][]string{})
}

func TestStructure(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{Seed: 1})
	got, err := b.change(
		&api.Request{AddSheet: &api.AddSheetRequest{Properties: &api.SheetProperties{Title: "Leads", SheetId: 7, GridProperties: &api.GridProperties{RowCount: 3, FrozenRowCount: 1}}}},
		&api.Request{AppendDimension: &api.AppendDimensionRequest{SheetId: 7, Dimension: "ROWS", Length: 2}},
		&api.Request{AppendDimension: &api.AppendDimensionRequest{SheetId: 7, Dimension: "COLUMNS", Length: 1}},
		&api.Request{UpdateSheetProperties: &api.UpdateSheetPropertiesRequest{Fields: "title,gridProperties(frozenRowCount,rowCount)",
			Properties: &api.SheetProperties{SheetId: 0, Title: "First", Index: 5, GridProperties: &api.GridProperties{FrozenRowCount: 1, RowCount: 10}}}},
		&api.Request{AddSheet: &api.AddSheetRequest{Properties: &api.SheetProperties{Title: "Between", Index: 1}}},
	)
	must(t, err)
	if len(got.Replies) != 5 || got.Replies[0].AddSheet.Properties.SheetId != 7 || got.Replies[1].AddSheet != nil || got.Replies[4].AddSheet.Properties.Index != 1 {
		t.Errorf("replies %+v", got.Replies)
	}
	doc, err := b.client.Get("book").Fields("sheets.properties(title,gridProperties)").Do()
	must(t, err)
	type shape struct {
		Title                string
		Rows, Cols, Fr, Fcol int64
	}
	var shapes []shape
	for _, s := range doc.Sheets {
		g := s.Properties.GridProperties
		shapes = append(shapes, shape{s.Properties.Title, g.RowCount, g.ColumnCount, g.FrozenRowCount, g.FrozenColumnCount})
	}
	want := []shape{{"First", 10, 26, 1, 0}, {"Between", 1000, 26, 0, 0}, {"Leads", 5, 27, 1, 0}}
	if d := cmp.Diff(want, shapes); d != "" {
		t.Errorf("sheets (-want +got):\n%s", d)
	}
	_, err = b.change(&api.Request{UpdateSheetProperties: &api.UpdateSheetPropertiesRequest{Fields: "index", Properties: &api.SheetProperties{SheetId: 7, Index: 0}}},
		&api.Request{DeleteSheet: &api.DeleteSheetRequest{SheetId: 0, ForceSendFields: []string{"SheetId"}}})
	must(t, err)
	if d := cmp.Diff([]string{"Leads", "Between"}, b.Tabs()); d != "" {
		t.Errorf("tabs (-want +got):\n%s", d)
	}
}

func TestInsertDeleteSort(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	must(t, b.write("A1", "RAW", []any{"h", "n"}, []any{"b", 10}, []any{"", 1}, []any{"A", true}, []any{"c", 9}))
	_, err := b.change(&api.Request{SortRange: &api.SortRangeRequest{
		Range:     &api.GridRange{StartRowIndex: 1, EndColumnIndex: 2},
		SortSpecs: []*api.SortSpec{{DimensionIndex: 0, SortOrder: "DESCENDING"}}}})
	must(t, err)
	wantRows(t, "texts down, case ignored, empty last", b.Rows("Sheet1"), [][]string{{"h", "n"}, {"c", "9"}, {"b", "10"}, {"A", "TRUE"}, {"", "1"}})
	_, err = b.change(&api.Request{SortRange: &api.SortRangeRequest{
		Range: &api.GridRange{StartRowIndex: 1, EndRowIndex: 5, StartColumnIndex: 1}, SortSpecs: []*api.SortSpec{{DimensionIndex: 1}}}})
	must(t, err)
	wantRows(t, "only the range, numbers by value", b.Rows("Sheet1"), [][]string{{"h", "n"}, {"c", "1"}, {"b", "9"}, {"A", "10"}, {"", "TRUE"}})
	_, err = b.change(
		&api.Request{InsertDimension: &api.InsertDimensionRequest{Range: rows(1, 3)}},
		&api.Request{DeleteDimension: &api.DeleteDimensionRequest{Range: rows(4, 6)}},
		&api.Request{InsertDimension: &api.InsertDimensionRequest{Range: columns(1, 2)}},
		&api.Request{DeleteDimension: &api.DeleteDimensionRequest{Range: columns(0, 1)}})
	must(t, err)
	wantRows(t, "after", b.Rows("Sheet1"), [][]string{{"", "n"}, {}, {}, {"", "1"}, {"", "TRUE"}})
	doc, err := b.client.Get("book").Do()
	must(t, err)
	if g := doc.Sheets[0].Properties.GridProperties; g.RowCount != 1000 || g.ColumnCount != 26 {
		t.Errorf("grid %+v", g)
	}
}

func TestStructureRefusals(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	must(t, b.write("A1", "RAW", []any{"kept"}))
	frozen := &api.Request{UpdateSheetProperties: &api.UpdateSheetPropertiesRequest{Fields: "gridProperties.frozenRowCount",
		Properties: &api.SheetProperties{GridProperties: &api.GridProperties{FrozenRowCount: 1}}}}
	_, err := b.change(frozen)
	must(t, err)
	properties := func(fields string, p *api.SheetProperties) *api.Request {
		return &api.Request{UpdateSheetProperties: &api.UpdateSheetPropertiesRequest{Fields: fields, Properties: p}}
	}
	cases := map[string]struct {
		request *api.Request
		message string
	}{
		"title taken":          {addSheet("Sheet1"), `Invalid requests[1].addSheet: A sheet with the name "Sheet1" already exists. Please enter another name.`},
		"title taken, by case": {addSheet("SHEET1"), "already exists"},
		"too many cells": {&api.Request{AppendDimension: &api.AppendDimensionRequest{Dimension: "ROWS", Length: 400_000}},
			"This action would increase the number of cells in the workbook above the limit of 10000000 cells."},
		"append nothing":    {&api.Request{AppendDimension: &api.AppendDimensionRequest{Dimension: "ROWS"}}, "length"},
		"append to nothing": {&api.Request{AppendDimension: &api.AppendDimensionRequest{SheetId: 9, Dimension: "ROWS", Length: 1}}, "No grid with id: 9"},
		"unknown dimension": {&api.Request{AppendDimension: &api.AppendDimensionRequest{Dimension: "DEPTH", Length: 1}}, "DEPTH"},
		"rename nothing":    {properties("title", &api.SheetProperties{SheetId: 9, Title: "x"}), "Invalid requests[1].updateSheetProperties: No sheet with id: 9"},
		"no fields":         {properties("", &api.SheetProperties{Title: "x"}), "At least one field must be listed"},
		"unknown field":     {properties("titel", &api.SheetProperties{Title: "x"}), "titel"},
		"empty title":       {properties("title", &api.SheetProperties{}), "must have a name"},
		"all frozen":        {properties("gridProperties.frozenRowCount", &api.SheetProperties{GridProperties: &api.GridProperties{FrozenRowCount: 1000}}), "You can't freeze all visible rows"},
		"no rows":           {properties("gridProperties.rowCount", &api.SheetProperties{}), "at least one row"},
		"delete beyond": {&api.Request{DeleteDimension: &api.DeleteDimensionRequest{Range: rows(1000, 1001)}},
			"Cannot delete a row that doesn't exist. Tried to delete row index 1000 but there are only 1000 rows."},
		"delete all":            {&api.Request{DeleteDimension: &api.DeleteDimensionRequest{Range: columns(0, 27)}}, "You can't delete all the columns on the sheet."},
		"delete all not frozen": {&api.Request{DeleteDimension: &api.DeleteDimensionRequest{Range: rows(1, 1000)}}, "Sorry, it is not possible to delete all non-frozen rows."},
		"delete backward":       {&api.Request{DeleteDimension: &api.DeleteDimensionRequest{Range: rows(5, 4)}}, "endIndex[4]"},
		"insert beyond":         {&api.Request{InsertDimension: &api.InsertDimensionRequest{Range: rows(1000, 1001)}}, "startIndex[1000]"},
		"insert above all, like before": {&api.Request{InsertDimension: &api.InsertDimensionRequest{Range: rows(0, 1), InheritFromBefore: true}},
			"inheritFromBefore"},
		"sort by elsewhere":  {&api.Request{SortRange: &api.SortRangeRequest{Range: &api.GridRange{EndColumnIndex: 2}, SortSpecs: []*api.SortSpec{{DimensionIndex: 2}}}}, "column 2 is outside"},
		"sort outside":       {&api.Request{SortRange: &api.SortRangeRequest{Range: &api.GridRange{EndRowIndex: 1001}, SortSpecs: []*api.SortSpec{{}}}}, "outside of the grid"},
		"kind not supported": {&api.Request{AutoFill: &api.AutoFillRequest{}}, `Unknown name "autoFill" at 'requests[1]': Cannot find field.`},
		"no kind":            {&api.Request{}, "requests[1]"},
	}
	before, err := b.client.Get("book").Do()
	must(t, err)
	for name, c := range cases {
		_, err := b.change(&api.Request{InsertDimension: &api.InsertDimensionRequest{Range: columns(0, 1)}}, c.request)
		wantError(t, name, err, 400, c.message)
		after, err := b.client.Get("book").Do()
		must(t, err)
		if d := cmp.Diff(before.Sheets[0].Properties, after.Sheets[0].Properties); d != "" || len(after.Sheets) != 1 {
			t.Errorf("%s changed the spreadsheet:\n%s", name, d)
		}
		wantRows(t, name+" changes nothing", b.Rows("Sheet1"), [][]string{{"kept"}})
	}
	_, err = b.change(&api.Request{DeleteSheet: &api.DeleteSheetRequest{}})
	wantError(t, "last tab", err, 400, "You can't remove all the sheets in a document.")
	_, err = b.change()
	wantError(t, "no request", err, 400, "Must specify at least one request.")
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	mark := func(id int64, r *api.DimensionRange) *api.Request {
		return &api.Request{CreateDeveloperMetadata: &api.CreateDeveloperMetadataRequest{DeveloperMetadata: &api.DeveloperMetadata{
			MetadataId: id, MetadataKey: "lead", MetadataValue: fmt.Sprint("v", id), Visibility: "PROJECT", Location: &api.DeveloperMetadataLocation{DimensionRange: r}}}}
	}
	got, err := b.change(mark(1, rows(4, 5)), mark(0, rows(5, 6)), mark(3, rows(9, 10)))
	must(t, err)
	if id := got.Replies[1].CreateDeveloperMetadata.DeveloperMetadata.MetadataId; id < 1 {
		t.Errorf("metadata id %d", id)
	}
	_, err = b.change(&api.Request{InsertDimension: &api.InsertDimensionRequest{Range: rows(0, 2)}}, mark(1, rows(0, 1)))
	wantError(t, "id taken", err, 400, "already taken")
	_, err = b.change(mark(4, rows(0, 2)))
	wantError(t, "two rows", err, 400, "exactly one row")
	must(t, b.InsertRow("Sheet1", 1))
	_, err = b.change(&api.Request{DeleteDimension: &api.DeleteDimensionRequest{Range: rows(6, 8)}})
	must(t, err)
	search := func(l *api.DeveloperMetadataLookup) []string {
		found, err := b.client.DeveloperMetadata.Search("book", &api.SearchDeveloperMetadataRequest{DataFilters: []*api.DataFilter{{DeveloperMetadataLookup: l}}}).Do()
		must(t, err)
		var at []string
		for _, m := range found.MatchedDeveloperMetadata {
			at = append(at, fmt.Sprint(m.DeveloperMetadata.MetadataValue, " ", m.DeveloperMetadata.Location.DimensionRange.StartIndex))
		}
		return at
	}
	if d := cmp.Diff([]string{"v1 5", "v3 8"}, search(&api.DeveloperMetadataLookup{MetadataKey: "lead"})); d != "" {
		t.Errorf("by key (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"v3 8"}, search(&api.DeveloperMetadataLookup{MetadataKey: "lead", MetadataValue: "v3"})); d != "" {
		t.Errorf("by value (-want +got):\n%s", d)
	}
}

func TestNamedRanges(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	name := func(id, name string, row, endRow, col, endCol int64) *api.Request {
		return &api.Request{AddNamedRange: &api.AddNamedRangeRequest{NamedRange: &api.NamedRange{NamedRangeId: id, Name: name,
			Range: &api.GridRange{StartRowIndex: row, EndRowIndex: endRow, StartColumnIndex: col, EndColumnIndex: endCol}}}}
	}
	remove := func(id string) *api.Request {
		return &api.Request{DeleteNamedRange: &api.DeleteNamedRangeRequest{NamedRangeId: id}}
	}
	r, err := b.change(name("id1", "Totals", 1, 3, 1, 3), name("", "other", 4, 5, 0, 1))
	must(t, err)
	if id := r.Replies[1].AddNamedRange.NamedRange.NamedRangeId; id == "" || id == "id1" {
		t.Errorf("the id given is %q", id)
	}
	must(t, b.write("totals", "RAW", []any{"a", "b"}, []any{"c", "d"}))
	wantRows(t, "written by name", b.Rows("Sheet1"), [][]string{{}, {"", "a", "b"}, {"", "c", "d"}})

	must(t, b.InsertRow("Sheet1", 1))
	must(t, b.InsertColumn("Sheet1", 1))
	must(t, b.write("Totals", "RAW", []any{"A"}))
	wantRows(t, "moved", b.Rows("Sheet1"), [][]string{{}, {}, {"", "", "A", "b"}, {"", "", "c", "d"}})
	must(t, b.DeleteRow("Sheet1", 3))
	wantError(t, "one row is left", b.write("Totals", "RAW", []any{"x"}, []any{"y"}), 400, "tried writing to row")

	_, err = b.change(name("id2", "TOTALS", 0, 1, 0, 1))
	wantError(t, "a name twice", err, 400, "already exists")
	_, err = b.change(name("id1", "Else", 0, 1, 0, 1))
	wantError(t, "an id twice", err, 400, "already exists")
	_, err = b.change(name("", "A1", 0, 1, 0, 1))
	wantError(t, "a reference for a name", err, 400, "not a valid name")
	_, err = b.change(name("", "Far", 0, 1001, 0, 1))
	wantError(t, "outside", err, 400, "outside of the grid")

	// All or nothing: the writes beside a name that is not there are not carried out.
	_, err = b.change(remove("id1"), remove("none"))
	wantError(t, "delete one that is not there", err, 400, "No named range with id: none")
	must(t, b.write("Totals", "RAW", []any{"still there"}))
	_, err = b.change(remove("id1"))
	must(t, err)
	_, err = b.client.Values.BatchUpdate("book", &api.BatchUpdateValuesRequest{ValueInputOption: "RAW", Data: []*api.ValueRange{
		{Range: "A1", Values: [][]any{{"no"}}}, {Range: "Totals", Values: [][]any{{nil}}}}}).Do()
	wantError(t, "write by a name that is gone", err, 400, "Unable to parse range: Totals")
	wantRows(t, "after it", b.Rows("Sheet1"), [][]string{{}, {}, {"", "", "still there", "d"}})

	must(t, b.DeleteRow("Sheet1", 5)) // all of "other"
	info, err := b.client.Get("book").Fields("namedRanges(name)").Do()
	must(t, err)
	if len(info.NamedRanges) != 0 {
		t.Errorf("left are %+v", info.NamedRanges[0])
	}
}

func TestFieldsAndWire(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{NotShared: []string{"private"}})
	const get = "/v4/spreadsheets/book"
	big := strings.Repeat(" ", 10<<20)
	cases := map[string]struct {
		method, path, body string
		status             int
		want               string // all of it when it begins with a brace, else a part
	}{
		"choice of fields": {"GET", get + "?fields=sheets.properties(sheetId,title)", "", 200, `{"sheets":[{"properties":{"sheetId":0,"title":"Sheet1"}}]}`},
		"slash for a dot":  {"GET", get + "?fields=sheets/properties/gridProperties/rowCount,spreadsheetId", "", 200, `{"sheets":[{"properties":{"gridProperties":{"rowCount":1000}}}],"spreadsheetId":"book"}`},
		"all fields":       {"GET", get + "?fields=*", "", 200, `"sheetType":"GRID"`},
		"unknown field":    {"GET", get + "?fields=sheets.title", "", 400, "Invalid field selection sheets.title"},
		"open parenthesis": {"GET", get + "?fields=sheets(properties", "", 400, "Invalid field selection"},
		"unknown field of a write": {"PUT", get + "/values/A1?valueInputOption=RAW&fields=nope", `{"values":[["x"]]}`, 400,
			"Invalid field selection nope"},
		"unknown parameter":      {"GET", get + "?fild=x", "", 400, `Unknown name \"fild\": Cannot bind query parameter.`},
		"grid data":              {"GET", get + "?includeGridData=true", "", 400, "includeGridData"},
		"unknown spreadsheet":    {"GET", "/v4/spreadsheets/nope", "", 404, `{"error":{"code":404,"message":"Requested entity was not found.","status":"NOT_FOUND"}}`},
		"not shared":             {"GET", "/v4/spreadsheets/private", "", 403, `{"error":{"code":403,"message":"The caller does not have permission","status":"PERMISSION_DENIED"}}`},
		"bad body comes first":   {"POST", "/v4/spreadsheets/nope:batchUpdate", `{"request":[]}`, 400, "Invalid JSON payload received."},
		"unknown name in a body": {"POST", get + "/values:batchUpdate", `{"valueInputOption":"RAW","datas":[]}`, 400, "Invalid JSON payload received."},
		"text after the body":    {"POST", get + "/values:batchUpdate", `{"valueInputOption":"RAW"} {}`, 400, "Invalid JSON payload received."},
		"other range in body":    {"PUT", get + "/values/A1?valueInputOption=RAW", `{"range":"B1","values":[["x"]]}`, 400, "B1"},
		"unknown method":         {"POST", get + "/values:batchGetByDataFilter", `{}`, 404, "NOT_FOUND"},
		"unknown verb":           {"DELETE", get, "", 404, "NOT_FOUND"},
		"create":                 {"POST", "/v4/spreadsheets", `{}`, 404, "NOT_FOUND"},
		"no range":               {"GET", get + "/values/", "", 404, "NOT_FOUND"},
		"escaped range": {"PUT", get + "/values/%27Sheet1%27%21A1%3AB1?valueInputOption=RAW", `{"values":[["x",null]]}`, 200,
			`{"spreadsheetId":"book","updatedCells":1,"updatedColumns":2,"updatedRange":"Sheet1!A1:B1","updatedRows":1}`},
		"literal range":  {"GET", get + "/values/Sheet1!A1:B2", "", 200, `"range":"Sheet1!A1:B2"`},
		"3 MB":           {"POST", get + "/values:batchUpdate", `{"valueInputOption":"RAW"}` + big[:3<<20], 200, "spreadsheetId"},
		"more than 10MB": {"POST", get + "/values:batchUpdate", `{"valueInputOption":"RAW"}` + big, 400, "Request payload size exceeds the limit: 10485760 bytes."},
		"long address":   {"GET", get + "?fields=" + strings.Repeat("a", 16<<10), "", 414, "too large"},
	}
	for name, c := range cases {
		status, body := b.raw(t, c.method, c.path, b.Token(), c.body)
		if status != c.status || strings.HasPrefix(c.want, "{") && body != c.want || !strings.Contains(body, c.want) {
			t.Errorf("%s: HTTP %d %s; want HTTP %d %s", name, status, body, c.status, c.want)
		}
	}
	wantRows(t, "after", b.Rows("Sheet1"), [][]string{{"x"}})
}

func TestQuota(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Unix(1_800_000_000, 0)
	b := start(t, google.Options{ReadsPerMinute: 3, WritesPerMinute: 2, RetryAfter: 7 * time.Second,
		Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	read := func() error { _, err := b.client.Values.Get("book", "A1").Do(); return err }
	write := func() error { return b.write("A1", "RAW", []any{"x"}) }

	must(t, write())
	pass(30 * time.Second)
	must(t, write())
	for range 3 {
		must(t, read())
	}
	wantError(t, "fourth read", read(), 429, "Quota exceeded for quota metric 'Read requests'")
	err := write()
	wantError(t, "third write", err, 429, "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute per user' of service 'sheets.googleapis.com'")
	var g *googleapi.Error
	if errors.As(err, &g) && (g.Header.Get("Retry-After") != "7" || len(g.Details) != 1 || !strings.Contains(g.Body, `"reason":"RATE_LIMIT_EXCEEDED"`) ||
		!strings.Contains(g.Body, `"quota_limit":"WriteRequestsPerMinutePerUser"`) || !strings.Contains(g.Body, `"status":"RESOURCE_EXHAUSTED"`)) {
		t.Errorf("header %v, body %s", g.Header, g.Body)
	}
	pass(29 * time.Second)
	wantError(t, "59 s after the first", write(), 429, "")
	pass(time.Second)
	must(t, write()) // the first has left the window, the second has not
	wantError(t, "60 s after the first", write(), 429, "")
	pass(time.Minute)
	must(t, write())
	must(t, write())
	if got, want := b.Stats(), (google.Stats{Reads: 3, Writes: 5, QuotaViolations: 4, Tokens: 1}); got != want {
		t.Errorf("stats %+v; want %+v", got, want)
	}
	if calls := b.Calls(); len(calls) != 12 || calls[5].Status != 429 || calls[5].Method != "values.get" || calls[0].Bytes == 0 {
		t.Errorf("calls %+v", calls)
	}
}

func TestDefaultQuotaIsSixty(t *testing.T) {
	t.Parallel()
	s, err := google.New(google.Options{Spreadsheets: []string{"book"}})
	must(t, err)
	token := s.Token()
	status := func(method, path string) int {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code
	}
	for i := range 60 {
		if r, w := status("GET", "/v4/spreadsheets/book"), status("POST", "/v4/spreadsheets/book/values/A1:clear"); r != 200 || w != 200 {
			t.Fatalf("call %d: read %d, write %d", i, r, w)
		}
	}
	if r, w := status("GET", "/v4/spreadsheets/book"), status("POST", "/v4/spreadsheets/book/values/A1:clear"); r != 429 || w != 429 {
		t.Errorf("61st: read %d, write %d", r, w)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	cases := map[google.Fault]struct {
		code    int // 0: the connection closed
		applied bool
	}{
		google.TooManyRequests: {429, false}, google.Internal: {500, false}, google.Unavailable: {503, false}, google.BadGateway: {502, false},
		google.DropBefore: {0, false}, google.DropAfter: {0, true}, google.TimeoutAfter: {504, true},
	}
	for fault, c := range cases {
		must(t, b.Clear("Sheet1"))
		b.FailNext(fault, 1)
		err := b.write("A1", "RAW", []any{"x"})
		var g *googleapi.Error
		if is := errors.As(err, &g); err == nil || is != (c.code != 0) || is && g.Code != c.code {
			t.Errorf("%s: %v; want HTTP %d", fault, err, c.code)
		}
		if applied := len(b.Rows("Sheet1")) == 1; applied != c.applied {
			t.Errorf("%s: applied %v", fault, applied)
		}
		if calls := b.Calls(); calls[len(calls)-1].Fault != fault || calls[len(calls)-1].Status != c.code {
			t.Errorf("%s: call %+v", fault, calls[len(calls)-1])
		}
		must(t, b.write("A1", "RAW", []any{"y"}))
	}
	b.FailNext(google.TimeoutAfter, 1)
	wantError(t, "what is refused was not applied", b.write("Nope!A1", "RAW", []any{"x"}), 400, "Nope!A1")
	b.FailNext(google.TooManyRequests, 3)
	for range 3 {
		wantError(t, "burst", b.write("A1", "RAW", []any{"x"}), 429, "Quota exceeded")
	}
	must(t, b.write("A1", "RAW", []any{"x"}))
	if n := b.Stats().QuotaViolations; n != 0 {
		t.Errorf("a burst on demand counts as %d violations", n)
	}
	b.SetFault(google.Unavailable)
	for range 2 {
		wantError(t, "outage", b.write("A1", "RAW", []any{"x"}), 503, "unavailable")
	}
	b.SetFault("")
	must(t, b.write("A1", "RAW", []any{"x"}))
}

func TestFaultByMethodAndLatency(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{MinLatency: 30 * time.Millisecond, MaxLatency: 40 * time.Millisecond, Fault: func(method string, n int) google.Fault {
		if method == "values.update" && n == 2 {
			return google.Internal
		}
		return ""
	}})
	for n := 1; n <= 3; n++ {
		began := time.Now()
		_, readErr := b.client.Values.Get("book", "A1").Do()
		must(t, readErr)
		if time.Since(began) < 30*time.Millisecond {
			t.Errorf("answered after %v", time.Since(began))
		}
		if err := b.write("A1", "RAW", []any{"x"}); (err != nil) != (n == 2) {
			t.Errorf("write %d: %v", n, err)
		}
	}
}

func TestPersonInTheMiddleOfACall(t *testing.T) {
	t.Parallel()
	var b bench
	var seen []string
	var once sync.Once
	b = start(t, google.Options{
		BeforeEach: func(method string) {
			if method == "values.update" {
				once.Do(func() { must(t, b.InsertRow("Sheet1", 1)) })
			}
			seen = append(seen, "before "+method)
		},
		AfterEach: func(method string) { seen = append(seen, fmt.Sprint("after ", method, " ", len(b.Rows("Sheet1")))) },
	})
	must(t, b.SetCell("Sheet1", 1, 1, "key"))
	must(t, b.write("B1", "RAW", []any{"value"}))
	wantRows(t, "the row moved before the write", b.Rows("Sheet1"), [][]string{{"", "value"}, {"key"}})
	_, err := b.client.Values.Clear("book", "A:B", &api.ClearValuesRequest{}).Do()
	must(t, err)
	if d := cmp.Diff([]string{"before values.update", "after values.update 2", "before values.clear", "after values.clear 0"}, seen); d != "" {
		t.Errorf("hooks (-want +got):\n%s", d)
	}
}

func TestHands(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	_, err := b.change(addSheet("Leads"), &api.Request{UpdateSheetProperties: &api.UpdateSheetPropertiesRequest{Fields: "gridProperties",
		Properties: &api.SheetProperties{SheetId: 0, GridProperties: &api.GridProperties{RowCount: 5, ColumnCount: 3, FrozenRowCount: 1}}}})
	must(t, err)
	must(t, b.write("A1", "RAW", []any{"id", "n"}, []any{"a", 2}, []any{"b", 10}, []any{"c", 1}))
	must(t, b.SortBy("Sheet1", 2, true))
	wantRows(t, "sorted down", b.Rows("Sheet1"), [][]string{{"id", "n"}, {"b", "10"}, {"a", "2"}, {"c", "1"}})
	must(t, b.SortBy("Sheet1", 1, false))
	must(t, b.InsertRow("Sheet1", 3))
	must(t, b.SetCell("Sheet1", 3, 2, "=A1"))
	must(t, b.DeleteRow("Sheet1", 2))
	must(t, b.InsertColumn("Sheet1", 2))
	wantRows(t, "edited", b.Rows("Sheet1"), [][]string{{"id", "", "n"}, {"", "", google.FormulaResult}, {"b", "", "10"}, {"c", "", "1"}})
	for want := 4; want <= 5; want++ { // the second is beyond the grid
		column, err := b.AddColumn("Sheet1", "notes")
		if err != nil || column != want {
			t.Errorf("column %d, %v; want %d", column, err, want)
		}
	}
	must(t, b.SetCell("Sheet1", 1, 4, ""))
	must(t, b.Shuffle("Sheet1", rand.New(rand.NewPCG(1, 2))))
	got := b.Rows("Sheet1")
	if len(got) < 3 || cmp.Diff([]string{"id", "", "n", "", "notes"}, got[0]) != "" {
		t.Errorf("shuffled: %q", got)
	}
	must(t, b.SortBy("Sheet1", 1, false))
	wantRows(t, "rows stay whole", b.Rows("Sheet1")[1:], [][]string{{"b", "", "10"}, {"c", "", "1"}, {"", "", google.FormulaResult}})
	must(t, b.Clear("Sheet1"))
	wantRows(t, "cleared", b.Rows("Sheet1"), [][]string{})
	must(t, b.DeleteTab("Sheet1"))
	if d := cmp.Diff([]string{"Leads"}, b.Tabs()); d != "" {
		t.Errorf("tabs (-want +got):\n%s", d)
	}
	if b.Rows("Sheet1") != nil {
		t.Error("a deleted tab has rows")
	}
	for name, err := range map[string]error{
		"unknown tab": b.Clear("Sheet1"), "last tab": b.DeleteTab("Leads"), "row 0": b.InsertRow("Leads", 0), "row beyond": b.DeleteRow("Leads", 1001),
		"column beyond": b.SortBy("Leads", 27, false), "cell beyond": b.SetCell("Leads", 1, 27, "x"), "column 0": b.InsertColumn("Leads", 0),
	} {
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 10 {
				cell := fmt.Sprintf("%c%d", 'A'+w, i+2)
				if err := b.write(cell, "RAW", []any{cell}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			if err := b.Shuffle("Sheet1", rand.New(rand.NewPCG(1, 2))); err != nil {
				t.Error(err)
			}
			b.Calls()
		}
	})
	wg.Wait()
	if n := b.Stats().Writes; n != 80 {
		t.Errorf("%d writes", n)
	}
}

// page is rows × 20 texts under each other.
func page(rows int) *api.ValueRange {
	values := make([][]any, rows)
	for r := range values {
		values[r] = make([]any, 20)
		for c := range values[r] {
			values[r][c] = fmt.Sprintf("value %d/%d", r, c)
		}
	}
	return &api.ValueRange{Range: fmt.Sprintf("Sheet1!A2:T%d", rows+1), Values: values}
}

func TestTenThousandRows(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{})
	_, err := b.change(&api.Request{AppendDimension: &api.AppendDimensionRequest{Dimension: "ROWS", Length: 19_001}})
	must(t, err)
	_, err = b.client.Values.BatchUpdate("book", &api.BatchUpdateValuesRequest{ValueInputOption: "RAW", Data: []*api.ValueRange{page(20_000)}}).Do()
	must(t, err)
	appended, err := b.client.Values.Append("book", "Sheet1", &api.ValueRange{Values: [][]any{{"below"}}}).ValueInputOption("RAW").Do()
	must(t, err)
	if appended.Updates.UpdatedRange != "Sheet1!A20002" {
		t.Errorf("appended at %s", appended.Updates.UpdatedRange)
	}
	must(t, b.SortBy("Sheet1", 1, true))
	keys, err := b.client.Values.Get("book", "A:A").Do()
	must(t, err)
	if len(keys.Values) != 20_002 || keys.Values[1][0] != "value 9999/0" {
		t.Errorf("%d keys, the first %v", len(keys.Values), keys.Values[1])
	}
}

func BenchmarkBatchUpdate(b *testing.B) {
	s := start(b, google.Options{})
	_, err := s.change(&api.Request{AppendDimension: &api.AppendDimensionRequest{Dimension: "ROWS", Length: 9_001}})
	must(b, err)
	req := &api.BatchUpdateValuesRequest{ValueInputOption: "RAW", Data: []*api.ValueRange{page(5000)}}
	for b.Loop() {
		_, err := s.client.Values.BatchUpdate("book", req).Do()
		must(b, err)
	}
}
