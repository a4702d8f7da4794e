package sheets

import (
	"context"
	"slices"
	"strings"
	"time"

	api "google.golang.org/api/sheets/v4"
)

// looks dresses a tab that is new.
func looks(t int, id int64) []*api.Request {
	n := int64(len(tabs[t].columns))
	out := []*api.Request{
		{RepeatCell: &api.RepeatCellRequest{
			Range:  &api.GridRange{SheetId: id, EndRowIndex: 1},
			Cell:   &api.CellData{UserEnteredFormat: &api.CellFormat{TextFormat: &api.TextFormat{Bold: true}}},
			Fields: "userEnteredFormat.textFormat.bold",
		}},
		{SetBasicFilter: &api.SetBasicFilterRequest{Filter: &api.BasicFilter{Range: &api.GridRange{SheetId: id, EndColumnIndex: n}}}},
	}
	for i, c := range tabs[t].columns {
		switch {
		case c.kind == moment:
			out = append(out, numbers(id, 1, i, "DATE_TIME", "yyyy-mm-dd hh:mm:ss"))
		case c.name == "amount":
			out = append(out, numbers(id, 1, i, "NUMBER", "#,##0.00"))
		}
	}
	return out
}

// numbers gives a column of a sheet a number format, from a row on.
func numbers(id int64, row, col int, kind, pattern string) *api.Request {
	return &api.Request{RepeatCell: &api.RepeatCellRequest{
		Range:  &api.GridRange{SheetId: id, StartRowIndex: int64(row), StartColumnIndex: int64(col), EndColumnIndex: int64(col) + 1, ForceSendFields: []string{"SheetId"}},
		Cell:   &api.CellData{UserEnteredFormat: &api.CellFormat{NumberFormat: &api.NumberFormat{Type: kind, Pattern: pattern}}},
		Fields: "userEnteredFormat.numberFormat",
	}}
}

// spareRows is how many rows a sheet grows by, unless the spreadsheet is nearly full.
const spareRows = 1000

// grow asks for rows and columns that a sheet does not have yet.
func grow(s sheet, rows, cols, cells int) []*api.Request {
	var more []*api.Request
	add := func(dimension string, n int) {
		more = append(more, &api.Request{AppendDimension: &api.AppendDimensionRequest{
			SheetId: s.id, Dimension: dimension, Length: int64(n), ForceSendFields: []string{"SheetId"},
		}})
	}
	if n := rows - s.rows; n > 0 {
		if cells+(n+spareRows)*s.cols < nearlyFull {
			n += spareRows
		}
		add("ROWS", n)
	}
	if cols > s.cols {
		add("COLUMNS", cols-s.cols)
	}
	return more
}

// dress gives columns of a tab that exists the format by which its times read as dates:
// without it a person would see bare numbers. It is a kindness, and no reason to stop.
func (w *Writer) dress(ctx context.Context, p *page, columns []int) {
	var requests []*api.Request
	for i, c := range tabs[p.tab].columns {
		if c.kind == moment && slices.Contains(columns, p.layout.at[i]) {
			requests = append(requests, numbers(p.sheet.id, p.layout.head+1, p.layout.at[i], "DATE_TIME", "yyyy-mm-dd hh:mm:ss"))
		}
	}
	if len(requests) > 0 && p.sheet.rows > p.layout.head+1 {
		_ = w.client.change(ctx, requests...)
	}
}

// datesAsText adds the columns of a row that hold times as the first release wrote them, as
// texts.
func datesAsText(columns []int, p *page, l *line) []int {
	for i, c := range tabs[p.tab].columns {
		if c.kind != moment || i == 0 || slices.Contains(columns, p.layout.at[i]) {
			continue
		}
		if _, err := time.Parse(time.RFC3339, l.cells[i-1]); err == nil && strings.HasSuffix(l.cells[i-1], "Z") {
			columns = append(columns, p.layout.at[i])
		}
	}
	return columns
}
