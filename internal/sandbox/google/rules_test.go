package google_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	api "google.golang.org/api/sheets/v4"

	"leadpipe/internal/sandbox/google"
)

// What people put on top of cells, and what Google then says to a program.
// https://support.google.com/docs/answer/1218656 (protection),
// https://support.google.com/docs/answer/9060449 (merges),
// https://support.google.com/docs/answer/7684717 (checkboxes hold TRUE or FALSE).
func TestRules(t *testing.T) {
	t.Parallel()
	const refused = "You are trying to edit a protected cell or object. Please contact the spreadsheet owner to remove protection if you need to edit."
	b := start(t, google.Options{Spreadsheets: []string{"book"}})
	must(t, b.write("Sheet1!A1:D3", "RAW", []any{"a", "b", "c", "d"}, []any{"e", "f", "g", "h"}, []any{"i", "j", "k", "l"}))

	must(t, b.Merge("Sheet1", 2, 2, 2, 3))
	wantRows(t, "a merge keeps the upper left cell", b.Rows("Sheet1"), [][]string{{"a", "b", "c", "d"}, {"e", "f", "", "h"}, {"i", "j", "k", "l"}})
	must(t, b.write("Sheet1!B2:D2", "RAW", []any{"1", "2", "3"}))
	wantRows(t, "what is written under a merge is dropped without a word", b.Rows("Sheet1")[1:2], [][]string{{"e", "1", "", "3"}})
	if err := b.SortBy("Sheet1", 1, true); err == nil {
		t.Error("merged cells were sorted")
	}
	must(t, b.InsertRow("Sheet1", 1))
	book, err := b.client.Get("book").Fields("sheets(merges,protectedRanges(range,requestingUserCanEdit,warningOnly))").Do()
	must(t, err)
	if m := book.Sheets[0].Merges; len(m) != 1 || m[0].StartRowIndex != 2 || m[0].StartColumnIndex != 1 || m[0].EndColumnIndex != 3 {
		t.Errorf("the merge did not move: %+v", m)
	}
	must(t, b.DeleteRow("Sheet1", 1))
	must(t, b.Unmerge("Sheet1"))

	must(t, b.Protect("Sheet1", 0, 3, 0, 3))
	wantError(t, "a protected column", b.write("Sheet1!A2:D2", "RAW", []any{"x", "x", "x", "x"}), 400, refused)
	must(t, b.write("Sheet1!A2:B2", "RAW", []any{"x", "x"}))
	_, err = b.change(&api.Request{DeleteDimension: &api.DeleteDimensionRequest{Range: columns(2, 3)}})
	wantError(t, "deleting it", err, 400, "Invalid requests[0].deleteDimension: "+refused)
	book, err = b.client.Get("book").Fields("sheets(protectedRanges(range,requestingUserCanEdit))").Do()
	must(t, err)
	if p := book.Sheets[0].ProtectedRanges; len(p) != 1 || p[0].RequestingUserCanEdit || p[0].Range.StartColumnIndex != 2 || p[0].Range.EndColumnIndex != 3 {
		t.Errorf("the protection as listed: %+v", p)
	}
	must(t, b.Unprotect("Sheet1"))
	must(t, b.Protect("Sheet1", 0, 0, 0, 0))
	wantError(t, "a protected tab", b.write("Sheet1!A2", "RAW", []any{"x"}), 400, refused)
	_, err = b.change(&api.Request{AppendDimension: &api.AppendDimensionRequest{Dimension: "ROWS", Length: 1}})
	wantError(t, "its grid", err, 400, refused)
	must(t, b.Unprotect("Sheet1"))
	must(t, b.write("Sheet1!A2", "RAW", []any{"x"}))

	must(t, b.Checkboxes("Sheet1", 5))
	if rows := b.Rows("Sheet1"); len(rows) != 1000 || rows[999][4] != "FALSE" {
		t.Errorf("%d rows with checkboxes", len(rows))
	}
	must(t, b.write("Sheet1!E2", "RAW", []any{true}))
	wantError(t, "a text into a checkbox", b.write("Sheet1!E2", "RAW", []any{"yes"}), 400, "cell E2 violates the data validation rules")
	must(t, b.Unrestrict("Sheet1"))
	must(t, b.Restrict("Sheet1", 2, "new", "client"))
	must(t, b.write("Sheet1!B2", "RAW", []any{"client"}))
	wantError(t, "what the list does not have", b.write("Sheet1!B2", "RAW", []any{"churned"}), 400, "cell B2 violates")
}

func TestLooksAndDates(t *testing.T) {
	t.Parallel()
	b := start(t, google.Options{Spreadsheets: []string{"book"}, TimeZone: "America/New_York"})
	dates := &api.CellData{UserEnteredFormat: &api.CellFormat{NumberFormat: &api.NumberFormat{Type: "DATE_TIME", Pattern: "yyyy-mm-dd hh:mm:ss"}}}
	bold := &api.CellData{UserEnteredFormat: &api.CellFormat{TextFormat: &api.TextFormat{Bold: true}}}
	_, err := b.change(
		&api.Request{RepeatCell: &api.RepeatCellRequest{Range: &api.GridRange{StartRowIndex: 1, StartColumnIndex: 1, EndColumnIndex: 2}, Cell: dates, Fields: "userEnteredFormat.numberFormat"}},
		&api.Request{RepeatCell: &api.RepeatCellRequest{Range: &api.GridRange{EndRowIndex: 1}, Cell: bold, Fields: "userEnteredFormat.textFormat.bold"}},
		&api.Request{SetBasicFilter: &api.SetBasicFilterRequest{Filter: &api.BasicFilter{Range: &api.GridRange{EndColumnIndex: 2}}}})
	must(t, err)
	// Serial numbers count days from 1899-12-30; half of one is noon.
	// https://developers.google.com/workspace/sheets/api/guides/formats#about_date_time_values
	must(t, b.write("Sheet1!A2:B2", "RAW", []any{44197.5, 44197.5}))
	wantRows(t, "a number, and a date", b.Rows("Sheet1")[1:], [][]string{{"44197.5", "2021-01-01 12:00:00"}})
	if l := b.Looks("Sheet1"); !l.Bold || !l.Filter || l.Formats[1] != "DATE_TIME" || l.Formats[0] != "" {
		t.Errorf("looks: %+v", l)
	}
	for option, want := range map[string]any{"SERIAL_NUMBER": 44197.5, "FORMATTED_STRING": "2021-01-01 12:00:00"} {
		got, err := b.client.Values.Get("book", "Sheet1!B2").ValueRenderOption("UNFORMATTED_VALUE").DateTimeRenderOption(option).Do()
		must(t, err)
		if d := cmp.Diff([][]any{{want}}, got.Values); d != "" {
			t.Errorf("%s: %s", option, d)
		}
	}
	book, err := b.client.Get("book").Do()
	must(t, err)
	if book.Properties.TimeZone != "America/New_York" {
		t.Errorf("time zone %q", book.Properties.TimeZone)
	}
	must(t, b.InsertColumn("Sheet1", 1))
	if l := b.Looks("Sheet1"); !slices.Contains(l.Formats[2:3], "DATE_TIME") {
		t.Errorf("the format did not move: %+v", l)
	}
	must(t, b.RenameTab("Sheet1", "SHEET1"))
	must(t, b.write("sheet1!A1", "RAW", []any{"letter case of a title does not matter"}))
	must(t, b.MakeTable("SHEET1"))
	_, err = b.change(&api.Request{SetBasicFilter: &api.SetBasicFilterRequest{Filter: &api.BasicFilter{Range: &api.GridRange{EndColumnIndex: 2}}}})
	wantError(t, "a filter on a table", err, 400, "table")
}
