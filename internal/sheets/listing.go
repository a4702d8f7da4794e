package sheets

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	api "google.golang.org/api/sheets/v4"
)

// A sheet is what Google says of one: its id, its title as a person wrote it, how large
// its grid is, and what people have put on top of it.
type sheet struct {
	id         int64
	title      string
	rows, cols int
	merges     []block
	locked     []block // that this account may not edit
}

// A block is a rectangle of a sheet; ends excluded.
type block struct{ row, col, endRow, endCol int }

func (b block) has(row, col int) bool {
	return row >= b.row && row < b.endRow && col >= b.col && col < b.endCol
}

// area names a block in A1 notation, with the sheet's title.
func (s sheet) area(b block) string {
	return fmt.Sprintf("'%s'!%s%d:%s%d", strings.ReplaceAll(s.title, "'", "''"), column(b.col), b.row+1, column(b.endCol-1), b.endRow)
}

// covered says whether a cell is hidden by a merge, so that it keeps no value.
func (s sheet) covered(row, col int) bool {
	return slices.ContainsFunc(s.merges, func(m block) bool { return m.has(row, col) && (m.row != row || m.col != col) })
}

// whole says whether all of a sheet is locked.
func (s sheet) whole() bool {
	return slices.ContainsFunc(s.locked, func(b block) bool { return b == block{0, 0, s.rows, s.cols} })
}

func (s sheet) isLocked(row, col int) bool {
	return slices.ContainsFunc(s.locked, func(b block) bool { return b.has(row, col) })
}

// A listing is what Google says of the spreadsheet: its sheets, the fences, the sheet to
// put one on, the time zone, and how many cells it has.
type listing struct {
	sheets []sheet
	fences []*api.NamedRange
	anchor int64
	open   bool // there is a sheet to put a fence on
	zone   string
	cells  int
}

// tab finds the sheet of a tab of ours. Titles differ only where they do so without
// regard to letter case.
func (l listing) tab(t int) (sheet, bool) {
	for _, s := range l.sheets {
		if strings.EqualFold(s.title, tabs[t].title) {
			return s, true
		}
	}
	return sheet{}, false
}

// listed are the fields that a listing needs.
const listed = "properties.timeZone,namedRanges(namedRangeId,name,range),sheets(properties(sheetId,title,gridProperties),merges,protectedRanges(range,requestingUserCanEdit,warningOnly))"

// list asks for the spreadsheet's sheets and fences.
func (c *client) list(ctx context.Context) (listing, error) {
	var l listing
	err := c.call(ctx, c.reads, "spreadsheets.get", func(ctx context.Context) error {
		r, err := c.svc.Spreadsheets.Get(c.id).Fields(listed).Context(ctx).Do()
		if err != nil {
			return err
		}
		if r.Properties != nil {
			l.zone = r.Properties.TimeZone
		}
		for _, s := range r.Sheets {
			p := s.Properties
			if p == nil || p.GridProperties == nil {
				continue
			}
			one := sheet{id: p.SheetId, title: p.Title, rows: int(p.GridProperties.RowCount), cols: int(p.GridProperties.ColumnCount)}
			l.cells += one.rows * one.cols
			for _, m := range s.Merges {
				one.merges = append(one.merges, one.block(m))
			}
			for _, p := range s.ProtectedRanges {
				if !p.RequestingUserCanEdit && !p.WarningOnly && p.Range != nil {
					one.locked = append(one.locked, one.block(p.Range))
				}
			}
			l.sheets = append(l.sheets, one)
			if !l.open && !one.isLocked(0, 0) {
				l.anchor, l.open = one.id, true
			}
		}
		l.fences = fences(r.NamedRanges)
		return nil
	})
	return l, err
}

// block reads a range by numbers; ends that are absent reach to the grid's.
func (s sheet) block(r *api.GridRange) block {
	b := block{int(r.StartRowIndex), int(r.StartColumnIndex), int(r.EndRowIndex), int(r.EndColumnIndex)}
	b.endRow, b.endCol = cmp.Or(b.endRow, s.rows), cmp.Or(b.endCol, s.cols)
	return b
}
