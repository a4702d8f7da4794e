package google

import (
	"errors"
	"fmt"
	"slices"

	api "google.golang.org/api/sheets/v4"
)

// A protection keeps the service account from editing an area, or a whole sheet.
type protection struct {
	id      int64
	area    area
	sheet   bool // all of it, whatever its size
	warning bool // people are asked; programs are not
}

// A validation is a rule for what cells may hold. Google documents that a strict one
// rejects invalid data, and not whether that includes the API's writes; the stricter
// reading is taken, with the sentence that Apps Script gives.
type validation struct {
	area    area
	boolean bool
	strict  bool
	oneOf   []string
}

// errProtected is what Google answers, word for word: it is quoted in
// https://github.com/theoephraim/node-google-spreadsheet/pull/20.
func errProtected() error {
	return bad("You are trying to edit a protected cell or object. Please contact the spreadsheet owner to remove protection if you need to edit.")
}

// errMergedSort is a person's. Sheets refuses to sort what holds merged cells.
var errMergedSort = errors.New("google stand-in: a range that has merged cells can't be sorted")

// inData names the part of values.batchUpdate that is at fault. Google does so for
// ranges; that it does for protection too is not confirmed.
func inData(i int, err error) error {
	var p *problem
	if errors.As(err, &p) && p.Code == 400 {
		return bad("Invalid data[%d]: %s", i, p.Message)
	}
	return err
}

func (a area) overlaps(o area) bool {
	return a.row < o.endRow && o.row < a.endRow && a.col < o.endCol && o.col < a.endCol
}

func (a area) has(row, col int) bool { return a.overlaps(area{row, col, row + 1, col + 1}) }

// covered says whether a cell is hidden by a merge: what is written there is dropped.
func (g *grid) covered(row, col int) bool {
	return slices.ContainsFunc(g.merges, func(m area) bool { return m.has(row, col) && (m.row != row || m.col != col) })
}

// locked says whether the whole sheet is protected.
func (g *grid) locked() bool {
	return slices.ContainsFunc(g.guarded, func(p protection) bool { return p.sheet && !p.warning })
}

// guards says whether any cell of an area is protected.
func (g *grid) guards(a area) bool {
	return slices.ContainsFunc(g.guarded, func(p protection) bool { return !p.warning && (p.sheet || p.area.overlaps(a)) })
}

// takes says whether protection and validation let a patch through.
func (g *grid) takes(p patch) error {
	reach := p.area
	reach.endRow, reach.endCol = max(reach.endRow, reach.row+1), max(reach.endCol, reach.col+1)
	if g.guards(reach) {
		return errProtected()
	}
	for _, v := range g.checks {
		if !v.strict || !v.area.overlaps(reach) {
			continue
		}
		for i, line := range p.values {
			for j, value := range line {
				row, col := reach.row+i, reach.col+j
				if !v.area.has(row, col) || value == nil || value == "" || v.allows(value) {
					continue
				}
				return bad("The data you entered in cell %s%d violates the data validation rules set on this cell.", columnName(col), row+1)
			}
		}
	}
	return nil
}

func (v validation) allows(value any) bool {
	if v.boolean {
		_, ok := value.(bool)
		return ok
	}
	return slices.Contains(v.oneOf, shown(value))
}

// extend lets what covers a column down to the last row cover n more: rows that are
// added below look like the last one. That the API does as the browser does is not
// documented.
func (g *grid) extend(n int) {
	for i := range g.formats {
		if a := &g.formats[i].area; a.endRow == g.rows && a.row < a.endRow {
			a.endRow += n
		}
	}
	for i := range g.checks {
		if a := &g.checks[i].area; a.endRow == g.rows {
			a.endRow += n
		}
	}
	for i := range g.guarded {
		if a := &g.guarded[i].area; a.endRow == g.rows {
			a.endRow += n
		}
	}
	if g.filter != nil && g.filter.endRow == g.rows {
		g.filter = &area{g.filter.row, g.filter.col, g.rows + n, g.filter.endCol}
	}
}

// dimensionArea is rows or columns from, to (excluded) as an area.
func dimensionArea(g *grid, dimension string, from, to int) area {
	if dimension == rowsDimension {
		return area{from, 0, to, g.cols}
	}
	return area{0, from, g.rows, to}
}

// moveRules follows rows or columns that come and go.
func (g *grid) moveRules(dimension string, move func(from, to int) (int, int)) {
	moved := func(a area) (area, bool) {
		if dimension == rowsDimension {
			a.row, a.endRow = move(a.row, a.endRow)
		} else {
			a.col, a.endCol = move(a.col, a.endCol)
		}
		return a, a.row < a.endRow && a.col < a.endCol
	}
	g.merges = shift(g.merges, func(m area) (area, bool) {
		m, ok := moved(m)
		return m, ok && (m.endRow-m.row)*(m.endCol-m.col) > 1
	})
	g.guarded = shift(g.guarded, func(p protection) (protection, bool) {
		a, ok := moved(p.area)
		p.area = a
		return p, ok || p.sheet
	})
	g.checks = shift(g.checks, func(v validation) (validation, bool) {
		a, ok := moved(v.area)
		v.area = a
		return v, ok
	})
	g.formats = shift(g.formats, func(f format) (format, bool) {
		a, ok := moved(f.area)
		f.area = a
		return f, ok
	})
	g.tables = shift(g.tables, func(t table) (table, bool) {
		a, ok := moved(t.area)
		t.area = a
		return t, ok
	})
	if g.filter != nil {
		if a, ok := moved(*g.filter); ok {
			g.filter = &a
		} else {
			g.filter = nil
		}
	}
}

func shift[T any](all []T, move func(T) (T, bool)) []T {
	var out []T
	for _, v := range all {
		if v, ok := move(v); ok {
			out = append(out, v)
		}
	}
	return out
}

func (g *grid) gridRange(a area) *api.GridRange {
	return &api.GridRange{SheetId: g.id, StartRowIndex: int64(a.row), StartColumnIndex: int64(a.col), EndRowIndex: int64(a.endRow), EndColumnIndex: int64(a.endCol)}
}

// describeRules adds to a sheet what is on top of its cells.
func (g *grid) describeRules(out *api.Sheet) {
	for _, m := range g.merges {
		out.Merges = append(out.Merges, g.gridRange(m))
	}
	for _, p := range g.guarded {
		r := &api.ProtectedRange{ProtectedRangeId: p.id, Range: &api.GridRange{SheetId: g.id}, WarningOnly: p.warning, RequestingUserCanEdit: p.warning}
		if !p.sheet {
			r.Range = g.gridRange(p.area)
		}
		out.ProtectedRanges = append(out.ProtectedRanges, r)
	}
	if g.filter != nil {
		out.BasicFilter = &api.BasicFilter{Range: g.gridRange(*g.filter)}
	}
	for _, t := range g.tables {
		out.Tables = append(out.Tables, &api.Table{TableId: t.id, Name: t.name, Range: g.gridRange(t.area)})
	}
}

func mergeCells(_ *Server, b *book, req *api.MergeCellsRequest, _ *api.Response) error {
	if err := oneOf("merge_type", req.MergeType, "MERGE_ALL", "MERGE_COLUMNS", "MERGE_ROWS"); err != nil {
		return err
	}
	if req.Range == nil {
		return bad("range: must be set")
	}
	g, a, err := b.gridRange(req.Range)
	if err != nil {
		return err
	}
	if g.guards(a) {
		return errProtected()
	}
	return g.merge(a, req.MergeType)
}

// merge joins cells; all but the upper left one of each lose what they hold.
func (g *grid) merge(a area, kind string) error {
	if slices.ContainsFunc(g.merges, a.overlaps) {
		return bad("You must select all cells in a merged range to merge or unmerge them.")
	}
	parts := []area{a}
	switch kind {
	case "MERGE_ROWS":
		parts = nil
		for r := a.row; r < a.endRow; r++ {
			parts = append(parts, area{r, a.col, r + 1, a.endCol})
		}
	case "MERGE_COLUMNS":
		parts = nil
		for c := a.col; c < a.endCol; c++ {
			parts = append(parts, area{a.row, c, a.endRow, c + 1})
		}
	}
	for _, m := range parts {
		if (m.endRow-m.row)*(m.endCol-m.col) == 1 {
			continue
		}
		corner := g.get(m.row, m.col)
		for r := m.row; r < min(m.endRow, len(g.cells)); r++ {
			g.cells[r] = slices.Clone(g.cells[r])
		}
		g.clear(m)
		if corner != nil {
			g.put(m.row, m.col, []any{corner})
		}
		g.merges = append(g.merges, m)
	}
	return nil
}

func unmergeCells(_ *Server, b *book, req *api.UnmergeCellsRequest, _ *api.Response) error {
	if req.Range == nil {
		return bad("range: must be set")
	}
	g, a, err := b.gridRange(req.Range)
	if err != nil {
		return err
	}
	g.merges = slices.DeleteFunc(slices.Clone(g.merges), a.overlaps)
	return nil
}

// whole says whether a range names a sheet and nothing else of it.
func whole(r *api.GridRange) bool {
	return r.StartRowIndex == 0 && r.StartColumnIndex == 0 && r.EndRowIndex == 0 && r.EndColumnIndex == 0
}

func addProtectedRange(s *Server, b *book, req *api.AddProtectedRangeRequest, reply *api.Response) error {
	p := req.ProtectedRange
	if p == nil || p.Range == nil {
		return bad("protectedRange and its range must be set")
	}
	g, a, err := b.gridRange(p.Range)
	if err != nil {
		return err
	}
	g.guarded = append(g.guarded, protection{id: s.random(1 << 31), area: a, sheet: whole(p.Range), warning: p.WarningOnly})
	reply.AddProtectedRange = &api.AddProtectedRangeResponse{ProtectedRange: p}
	return nil
}

func deleteProtectedRange(_ *Server, b *book, req *api.DeleteProtectedRangeRequest, _ *api.Response) error {
	for _, g := range b.sheets {
		i := slices.IndexFunc(g.guarded, func(p protection) bool { return p.id == req.ProtectedRangeId })
		if i < 0 {
			continue
		}
		if !g.guarded[i].warning {
			return errProtected()
		}
		g.guarded = slices.Delete(slices.Clone(g.guarded), i, i+1)
		return nil
	}
	return bad("No protected range with id: %d", req.ProtectedRangeId)
}

func setDataValidation(_ *Server, b *book, req *api.SetDataValidationRequest, _ *api.Response) error {
	if req.Range == nil {
		return bad("range: must be set")
	}
	g, a, err := b.gridRange(req.Range)
	if err != nil {
		return err
	}
	g.checks = slices.DeleteFunc(slices.Clone(g.checks), func(v validation) bool { return v.area == a })
	if req.Rule == nil {
		return nil
	}
	v := validation{area: a, strict: req.Rule.Strict}
	switch c := req.Rule.Condition; {
	case c != nil && c.Type == "BOOLEAN":
		v.boolean = true
	case c != nil && c.Type == "ONE_OF_LIST":
		for _, value := range c.Values {
			v.oneOf = append(v.oneOf, value.UserEnteredValue)
		}
	default:
		return bad("only conditions BOOLEAN and ONE_OF_LIST are part of this stand-in")
	}
	g.checks = append(g.checks, v)
	return nil
}

// What follows is what a person does about these rules. Rows and columns count from 1;
// those of a range are both included.

// RenameTab gives a tab another title.
func (s *Server) RenameTab(tab, title string) error {
	return s.edit(tab, func(b *book, g *grid) error {
		if err := b.freeTitle(title, g); err != nil {
			return err
		}
		g.title = title
		return nil
	})
}

// SetTimeZone changes the spreadsheet's.
func (s *Server) SetTimeZone(zone string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first().zone = zone
}

// Merge joins cells to one, which keeps the upper left one's value.
func (s *Server) Merge(tab string, row, column, lastRow, lastColumn int) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		a := area{row - 1, column - 1, lastRow, lastColumn}
		if a.row < 0 || a.col < 0 || a.endRow > g.rows || a.endCol > g.cols || (a.endRow-a.row)*(a.endCol-a.col) < 2 {
			return outside("range", row, column, lastRow, lastColumn)
		}
		return g.merge(a, "MERGE_ALL")
	})
}

// Unmerge takes all merges of a tab away.
func (s *Server) Unmerge(tab string) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		g.merges = nil
		return nil
	})
}

// Protect keeps everybody but the owner from editing a range. All four 0: the tab;
// both rows 0: whole columns.
func (s *Server) Protect(tab string, row, column, lastRow, lastColumn int) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		p := protection{id: s.random(1 << 31), area: area{row - 1, column - 1, lastRow, lastColumn}}
		if row == 0 && lastRow == 0 {
			p.area.row, p.area.endRow = 0, g.rows
		}
		if column == 0 && lastColumn == 0 {
			p.sheet, p.area.col, p.area.endCol = true, 0, g.cols
		}
		if p.area.row < 0 || p.area.col < 0 || p.area.endRow > g.rows || p.area.endCol > g.cols || p.area.row >= p.area.endRow || p.area.col >= p.area.endCol {
			return outside("range", row, column, lastRow, lastColumn)
		}
		g.guarded = append(g.guarded, p)
		return nil
	})
}

// Unprotect takes all protection of a tab away.
func (s *Server) Unprotect(tab string) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		g.guarded = nil
		return nil
	})
}

// Checkboxes puts one into every cell of a column below the header, to the last row of
// the grid: each then holds FALSE.
func (s *Server) Checkboxes(tab string, column int) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		if column < 1 || column > g.cols {
			return outside("column", column)
		}
		a := area{1, column - 1, g.rows, column}
		g.checks = append(g.checks, validation{area: a, boolean: true, strict: true})
		for r := a.row; r < a.endRow; r++ {
			if g.get(r, a.col) == nil {
				g.put(r, a.col, []any{false})
			}
		}
		return nil
	})
}

// Restrict lets a column below the header hold nothing but the given texts.
func (s *Server) Restrict(tab string, column int, to ...string) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		if column < 1 || column > g.cols {
			return outside("column", column)
		}
		g.checks = append(g.checks, validation{area: area{1, column - 1, g.rows, column}, strict: true, oneOf: to})
		return nil
	})
}

// Unrestrict takes all rules of a tab away.
func (s *Server) Unrestrict(tab string) error {
	return s.edit(tab, func(_ *book, g *grid) error {
		g.checks = nil
		return nil
	})
}

// DeleteColumn deletes a column; those right of it move left.
func (s *Server) DeleteColumn(tab string, at int) error {
	return s.edit(tab, func(b *book, g *grid) error {
		if at < 1 || at > g.cols || g.cols == 1 {
			return outside("column", at)
		}
		b.delete(g, columnsDimension, at-1, at)
		return nil
	})
}

// Grow gives a tab more empty rows and columns.
func (s *Server) Grow(tab string, rows, columns int) error {
	return s.edit(tab, func(b *book, g *grid) error {
		if err := b.room((g.rows+rows)*(g.cols+columns) - g.rows*g.cols); err != nil {
			return fmt.Errorf("google stand-in: %w", err)
		}
		g.rows, g.cols = g.rows+rows, g.cols+columns
		return nil
	})
}
