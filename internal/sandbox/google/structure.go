package google

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	api "google.golang.org/api/sheets/v4"
)

const (
	rowsDimension    = "ROWS"
	columnsDimension = "COLUMNS"
)

// properties of a sheet as the API gives them.
func (b *book) properties(g *grid) *api.SheetProperties {
	return &api.SheetProperties{
		SheetId: g.id, Title: g.title, Index: int64(slices.Index(b.sheets, g)), SheetType: "GRID",
		GridProperties: &api.GridProperties{RowCount: int64(g.rows), ColumnCount: int64(g.cols),
			FrozenRowCount: int64(g.frozenRows), FrozenColumnCount: int64(g.frozenCols)},
		ForceSendFields: []string{"SheetId", "Index"}, // unlike others these are sent when 0
	}
}

func (b *book) describe() *api.Spreadsheet {
	out := &api.Spreadsheet{SpreadsheetId: b.id, SpreadsheetUrl: "https://docs.google.com/spreadsheets/d/" + b.id + "/edit",
		Properties: &api.SpreadsheetProperties{Title: "CRM", Locale: "en_US", TimeZone: b.zone, AutoRecalc: "ON_CHANGE"}}
	for _, g := range b.sheets {
		sheet := &api.Sheet{Properties: b.properties(g)}
		g.describeRules(sheet)
		out.Sheets = append(out.Sheets, sheet)
	}
	out.NamedRanges = b.describeNames()
	return out
}

func prepareSpreadsheet(r request) (apply, error) {
	if r.query.Get("includeGridData") == "true" {
		return nil, bad("includeGridData is not part of this stand-in: read with spreadsheets.values")
	}
	return func(b *book) (any, error) { return b.describe(), nil }, nil
}

// prepareStructure carries out spreadsheets.batchUpdate: on a copy, which takes the
// book's place when every request has succeeded.
func prepareStructure(r request) (apply, error) {
	var body struct {
		Requests                     []map[string]json.RawMessage `json:"requests"`
		IncludeSpreadsheetInResponse bool                         `json:"includeSpreadsheetInResponse"`
	}
	if err := decode(r.body, &body); err != nil {
		return nil, err
	}
	if len(body.Requests) == 0 {
		return nil, bad("Must specify at least one request.")
	}
	for i, req := range body.Requests {
		if len(req) != 1 {
			return nil, bad("Invalid requests[%d]: exactly one kind of request must be set", i)
		}
		for kind := range req {
			if changes[kind] == nil {
				return nil, unknownName(kind, fmt.Sprintf("requests[%d]", i))
			}
		}
	}
	return func(b *book) (any, error) {
		next := b.clone()
		out := &api.BatchUpdateSpreadsheetResponse{SpreadsheetId: b.id}
		for i, req := range body.Requests {
			for kind, params := range req {
				reply, err := changes[kind](r.server, next, params)
				if err == nil {
					err = next.room(0)
				}
				if err != nil {
					var p *problem
					if errors.As(err, &p) {
						return nil, bad("Invalid requests[%d].%s: %s", i, kind, p.Message)
					}
					return nil, err
				}
				out.Replies = append(out.Replies, reply)
			}
		}
		*b = *next
		if body.IncludeSpreadsheetInResponse {
			out.UpdatedSpreadsheet = b.describe()
		}
		return out, nil
	}, nil
}

// A change is one kind of request of spreadsheets.batchUpdate.
type change func(s *Server, b *book, params []byte) (*api.Response, error)

// changeOf decodes a kind's parameters. Most kinds have nothing to reply.
func changeOf[T any](do func(s *Server, b *book, req *T, reply *api.Response) error) change {
	return func(s *Server, b *book, params []byte) (*api.Response, error) {
		var req T
		if err := decode(params, &req); err != nil {
			return nil, err
		}
		reply := &api.Response{}
		return reply, do(s, b, &req, reply)
	}
}

var changes = map[string]change{
	"addSheet":                changeOf(addSheet),
	"deleteSheet":             changeOf(deleteSheet),
	"updateSheetProperties":   changeOf(updateSheetProperties),
	"appendDimension":         changeOf(appendDimension),
	"insertDimension":         changeOf(insertDimension),
	"deleteDimension":         changeOf(deleteDimension),
	"sortRange":               changeOf(sortRange),
	"createDeveloperMetadata": changeOf(createDeveloperMetadata),
	"addNamedRange":           changeOf(addNamedRange),
	"deleteNamedRange":        changeOf(deleteNamedRange),

	"mergeCells":           changeOf(mergeCells),
	"unmergeCells":         changeOf(unmergeCells),
	"addProtectedRange":    changeOf(addProtectedRange),
	"deleteProtectedRange": changeOf(deleteProtectedRange),
	"setDataValidation":    changeOf(setDataValidation),
	"repeatCell":           changeOf(repeatCell),
	"setBasicFilter":       changeOf(setBasicFilter),
	"clearBasicFilter":     changeOf(clearBasicFilter),
	"addTable":             changeOf(addTable),
}

func addSheet(s *Server, b *book, req *api.AddSheetRequest, reply *api.Response) error {
	p := req.Properties
	if p == nil {
		p = &api.SheetProperties{}
	}
	if p.SheetType != "" && p.SheetType != "GRID" {
		return bad("only sheets of type GRID are part of this stand-in")
	}
	g := &grid{id: p.SheetId, title: p.Title, rows: defaultRows, cols: defaultColumns}
	for g.id == 0 || p.SheetId == 0 && b.byID(g.id) != nil {
		g.id = s.random(1 << 31)
	}
	if b.byID(g.id) != nil {
		return bad("A sheet with id %d already exists.", g.id)
	}
	for n := len(b.sheets) + 1; g.title == ""; n++ {
		if title := fmt.Sprintf("Sheet%d", n); b.tab(title) == nil {
			g.title = title
		}
	}
	if err := b.freeTitle(g.title, nil); err != nil {
		return err
	}
	if gp := p.GridProperties; gp != nil {
		if gp.RowCount != 0 {
			g.rows = int(gp.RowCount)
		}
		if gp.ColumnCount != 0 {
			g.cols = int(gp.ColumnCount)
		}
		g.frozenRows, g.frozenCols = int(gp.FrozenRowCount), int(gp.FrozenColumnCount)
	}
	if err := g.sound(); err != nil {
		return err
	}
	at := len(b.sheets)
	if p.Index > 0 {
		at = min(at, int(p.Index)) // 0 can't be told from absent
	}
	b.sheets = slices.Insert(b.sheets, at, g)
	reply.AddSheet = &api.AddSheetResponse{Properties: b.properties(g)}
	return nil
}

func (b *book) freeTitle(title string, but *grid) error {
	if g := b.tab(title); g != nil && g != but {
		return bad("A sheet with the name %q already exists. Please enter another name.", g.title)
	}
	return nil
}

// sound checks a grid's measures.
func (g *grid) sound() error {
	switch {
	case g.rows < 1 || g.cols < 1:
		return bad("gridProperties: a sheet has at least one row and one column")
	case g.frozenRows < 0 || g.frozenRows >= g.rows:
		return bad("You can't freeze all visible rows on the sheet.")
	case g.frozenCols < 0 || g.frozenCols >= g.cols:
		return bad("You can't freeze all visible columns on the sheet.")
	}
	return nil
}

func deleteSheet(_ *Server, b *book, req *api.DeleteSheetRequest, _ *api.Response) error {
	g := b.byID(req.SheetId)
	if g == nil {
		return bad("No sheet with id: %d", req.SheetId)
	}
	return b.remove(g)
}

func (b *book) remove(g *grid) error {
	if len(b.sheets) == 1 {
		return bad("You can't remove all the sheets in a document.")
	}
	b.sheets = slices.DeleteFunc(slices.Clone(b.sheets), func(other *grid) bool { return other == g })
	b.meta = slices.DeleteFunc(b.meta, func(m metadata) bool { return m.kind != "SPREADSHEET" && m.sheet == g.id })
	b.names = slices.DeleteFunc(slices.Clone(b.names), func(n named) bool { return n.sheet == g.id })
	return nil
}

func updateSheetProperties(_ *Server, b *book, req *api.UpdateSheetPropertiesRequest, _ *api.Response) error {
	p := req.Properties
	if p == nil {
		return bad("properties: must be set")
	}
	g := b.byID(p.SheetId)
	if g == nil {
		return bad("No sheet with id: %d", p.SheetId)
	}
	fields, err := parseMask(req.Fields)
	if err != nil || len(fields) == 0 {
		return bad("At least one field must be listed in 'fields'. (Use '*' to indicate all fields.)")
	}
	gp := p.GridProperties
	if gp == nil {
		gp = &api.GridProperties{}
	}
	after := *g
	set := map[string]func(){
		"title":                            func() { after.title = p.Title },
		"index":                            func() {},
		"gridProperties.rowCount":          func() { after.rows = int(gp.RowCount) },
		"gridProperties.columnCount":       func() { after.cols = int(gp.ColumnCount) },
		"gridProperties.frozenRowCount":    func() { after.frozenRows = int(gp.FrozenRowCount) },
		"gridProperties.frozenColumnCount": func() { after.frozenCols = int(gp.FrozenColumnCount) },
	}
	named := map[string]bool{}
	for _, path := range fields.paths() {
		path, some := strings.TrimSuffix(strings.TrimSuffix(path, "*"), "."), false
		for field := range set {
			if path == "" || path == field || strings.HasPrefix(field, path+".") {
				named[field], some = true, true
			}
		}
		if !some {
			return bad("fields: %s is unknown, or not part of this stand-in", path)
		}
	}
	for field := range named {
		set[field]()
	}
	if after.title == "" {
		return bad("title: a sheet must have a name")
	}
	if err := b.freeTitle(after.title, g); err != nil {
		return err
	}
	if g.locked() {
		return errProtected()
	}
	if err := after.sound(); err != nil {
		return err
	}
	rows, cols := after.rows, after.cols
	g.title, g.frozenRows, g.frozenCols = after.title, after.frozenRows, after.frozenCols
	if rows < g.rows {
		b.delete(g, rowsDimension, rows, g.rows)
	}
	if cols < g.cols {
		b.delete(g, columnsDimension, cols, g.cols)
	}
	g.rows, g.cols = rows, cols
	if named["index"] {
		b.sheets = slices.DeleteFunc(slices.Clone(b.sheets), func(other *grid) bool { return other == g })
		b.sheets = slices.Insert(b.sheets, min(max(int(p.Index), 0), len(b.sheets)), g)
	}
	return nil
}

func appendDimension(_ *Server, b *book, req *api.AppendDimensionRequest, _ *api.Response) error {
	g := b.byID(req.SheetId)
	switch {
	case g == nil:
		return bad("No grid with id: %d", req.SheetId)
	case req.Length < 1:
		return bad("length: must be greater than 0")
	case g.locked():
		return errProtected()
	case req.Dimension == rowsDimension:
		g.extend(int(req.Length))
		g.rows += int(req.Length)
	case req.Dimension == columnsDimension:
		g.cols += int(req.Length)
	default:
		return badEnum("dimension", req.Dimension)
	}
	return nil
}

// dimension finds the rows or columns that a request is about. An end of 0 is absent:
// up to the last.
func (b *book) dimension(r *api.DimensionRange) (g *grid, start, end, size int, err error) {
	if r == nil {
		return nil, 0, 0, 0, bad("range: must be set")
	}
	if g = b.byID(r.SheetId); g == nil {
		return nil, 0, 0, 0, bad("No grid with id: %d", r.SheetId)
	}
	switch r.Dimension {
	case rowsDimension:
		size = g.rows
	case columnsDimension:
		size = g.cols
	default:
		return nil, 0, 0, 0, badEnum("range.dimension", r.Dimension)
	}
	start, end = int(r.StartIndex), int(r.EndIndex)
	if end == 0 {
		end = size
	}
	if start < 0 || end <= start {
		return nil, 0, 0, 0, bad("range: endIndex[%d] must be greater than startIndex[%d]", end, start)
	}
	return g, start, end, size, nil
}

func insertDimension(_ *Server, b *book, req *api.InsertDimensionRequest, _ *api.Response) error {
	g, start, end, size, err := b.dimension(req.Range)
	switch {
	case err != nil:
		return err
	case req.Range.EndIndex == 0:
		return bad("range.endIndex: must be set")
	case start == 0 && req.InheritFromBefore:
		return bad("inheritFromBefore can't be true when inserting at the first row or column")
	case start > size || start == size && !req.InheritFromBefore:
		return bad("range.startIndex[%d] is beyond the last, %d", start, size-1)
	case g.locked(), g.guards(dimensionArea(g, req.Range.Dimension, start, start)):
		return errProtected()
	}
	b.insert(g, req.Range.Dimension, start, end-start)
	return nil
}

func deleteDimension(_ *Server, b *book, req *api.DeleteDimensionRequest, _ *api.Response) error {
	g, start, end, size, err := b.dimension(req.Range)
	if err != nil {
		return err
	}
	one, frozen := "row", g.frozenRows
	if req.Range.Dimension == columnsDimension {
		one, frozen = "column", g.frozenCols
	}
	switch end = min(end, size); {
	case start >= size:
		return bad("Cannot delete a %s that doesn't exist. Tried to delete %[1]s index %d but there are only %d %[1]ss.", one, start, size)
	case start == 0 && end == size:
		return bad("You can't delete all the %ss on the sheet.", one)
	case start <= frozen && end == size:
		return bad("Sorry, it is not possible to delete all non-frozen %ss.", one)
	case g.guards(dimensionArea(g, req.Range.Dimension, start, end)):
		return errProtected()
	}
	b.delete(g, req.Range.Dimension, start, end)
	return nil
}

// insert and delete change a grid, and move what is bound to its rows or columns.
func (b *book) insert(g *grid, dimension string, at, n int) {
	if dimension == rowsDimension {
		g.insertRows(at, n)
	} else {
		g.insertColumns(at, n)
	}
	b.namesAfterInsert(g, dimension, at, n)
	g.moveRules(dimension, afterInsert(at, n))
	for i, m := range b.meta {
		if m.on(g, dimension) && m.index >= at {
			b.meta[i].index += n
		}
	}
}

func (b *book) delete(g *grid, dimension string, at, end int) {
	if dimension == rowsDimension {
		g.deleteRows(at, end)
	} else {
		g.deleteColumns(at, end)
	}
	b.namesAfterDelete(g, dimension, at, end)
	g.moveRules(dimension, afterDelete(at, end))
	b.meta = slices.DeleteFunc(b.meta, func(m metadata) bool { return m.on(g, dimension) && m.index >= at && m.index < end })
	for i, m := range b.meta {
		if m.on(g, dimension) && m.index >= end {
			b.meta[i].index -= end - at
		}
	}
}

// gridRange finds a range that is given by numbers. Ends that are absent reach to the
// grid's.
func (b *book) gridRange(r *api.GridRange) (*grid, area, error) {
	g := b.byID(r.SheetId)
	if g == nil {
		return nil, area{}, bad("No grid with id: %d", r.SheetId)
	}
	a := area{int(r.StartRowIndex), int(r.StartColumnIndex), int(r.EndRowIndex), int(r.EndColumnIndex)}
	if a.endRow == 0 {
		a.endRow = g.rows
	}
	if a.endCol == 0 {
		a.endCol = g.cols
	}
	if a.row < 0 || a.col < 0 || a.row >= a.endRow || a.col >= a.endCol || a.endRow > g.rows || a.endCol > g.cols {
		return nil, area{}, bad("range: outside of the grid")
	}
	return g, a, nil
}

func sortRange(_ *Server, b *book, req *api.SortRangeRequest, _ *api.Response) error {
	if req.Range == nil || len(req.SortSpecs) == 0 {
		return bad("range and sortSpecs must be set")
	}
	g, a, err := b.gridRange(req.Range)
	if err != nil {
		return err
	}
	var by []sorting
	for _, s := range req.SortSpecs {
		if err := oneOf("sort_order", s.SortOrder, "", "ASCENDING", "DESCENDING"); err != nil {
			return err
		}
		if int(s.DimensionIndex) < a.col || int(s.DimensionIndex) >= a.endCol {
			return bad("sortSpecs: column %d is outside of the range", s.DimensionIndex)
		}
		by = append(by, sorting{int(s.DimensionIndex), s.SortOrder == "DESCENDING"})
	}
	g.sort(a, by...)
	return nil
}
