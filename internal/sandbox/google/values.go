package google

import (
	"net/url"
	"slices"

	api "google.golang.org/api/sheets/v4"
)

// A reading says in which form values are answered.
type reading struct {
	render, dates string
	columns       bool // the outer list is of columns
}

func readingFrom(q url.Values) (reading, error) {
	r := reading{render: q.Get("valueRenderOption"), dates: q.Get("dateTimeRenderOption")}
	major := q.Get("majorDimension")
	if err := oneOf("value_render_option", r.render, "", "FORMATTED_VALUE", "UNFORMATTED_VALUE", "FORMULA"); err != nil {
		return r, err
	}
	if err := oneOf("date_time_render_option", r.dates, "", "SERIAL_NUMBER", "FORMATTED_STRING"); err != nil {
		return r, err
	}
	r.columns = major == "COLUMNS"
	return r, oneOf("major_dimension", major, "", "ROWS", "COLUMNS")
}

func (r reading) value(v any) any {
	switch v := v.(type) {
	case nil:
		return ""
	case formula:
		if r.render == "FORMULA" {
			return string(v)
		}
	case date:
		if r.render == "" || r.render == "FORMATTED_VALUE" || r.dates == "FORMATTED_STRING" {
			return v.text
		}
		return v.serial
	}
	if r.render == "" || r.render == "FORMATTED_VALUE" || rank(v) == 1 {
		return shown(v)
	}
	return v
}

// read answers an area without the empty rows at its end and the empty cells at the
// end of each row.
func (g *grid) read(a area, r reading) *api.ValueRange {
	out := &api.ValueRange{Range: g.a1(a), MajorDimension: "ROWS"}
	lines, width := min(a.endRow, len(g.cells))-a.row, a.endCol-a.col
	at := func(i, j int) any { return g.look(a.row+i, a.col+j) }
	if r.columns {
		out.MajorDimension = "COLUMNS"
		lines, width = width, lines
		at = func(i, j int) any { return g.look(a.row+j, a.col+i) }
	}
	full := 0
	for i := range max(lines, 0) {
		n := max(width, 0)
		for n > 0 && at(i, n-1) == nil {
			n--
		}
		line := make([]any, n)
		for j := range line {
			line[j] = r.value(at(i, j))
		}
		out.Values = append(out.Values, line)
		if n > 0 {
			full = i + 1
		}
	}
	out.Values = out.Values[:full]
	return out
}

// A patch is a checked write: values from the area's corner on.
type patch struct {
	grid   *grid
	area   area
	values [][]any
	cells  int64 // without those that are left alone
}

// input checks what a write brings and gives it by rows.
func input(v *api.ValueRange, option, where string) ([][]any, error) {
	switch option {
	case "":
		return nil, bad("'valueInputOption' is required but not specified")
	case "RAW", "USER_ENTERED":
	default:
		return nil, badEnum("value_input_option", option)
	}
	if err := oneOf("major_dimension", v.MajorDimension, "", "ROWS", "COLUMNS"); err != nil {
		return nil, err
	}
	values := v.Values
	if v.MajorDimension == "COLUMNS" {
		values = nil
		for c, column := range v.Values {
			for r, cell := range column {
				for len(values) <= r {
					values = append(values, nil)
				}
				for len(values[r]) <= c {
					values[r] = append(values[r], nil)
				}
				values[r][c] = cell
			}
		}
	}
	for r, line := range values {
		for c, cell := range line {
			switch cell := cell.(type) {
			case string:
				if tooLong(cell) {
					return nil, bad("Your input contains more than the maximum of %d characters in a single cell.", maxCellLength)
				}
				if option == "USER_ENTERED" && cell != "" {
					line[c] = typed(cell)
				}
			case []any:
				return nil, bad("Invalid %s[%d][%d]: list_value", where, r, c)
			case map[string]any:
				return nil, bad("Invalid %s[%d][%d]: struct_value", where, r, c)
			}
		}
	}
	return values, nil
}

func newPatch(g *grid, a area, values [][]any) patch {
	p := patch{grid: g, values: values}
	width := 0
	for _, line := range values {
		width = max(width, len(line))
		for _, v := range line {
			if v != nil {
				p.cells++
			}
		}
	}
	p.area = area{a.row, a.col, a.row + len(values), a.col + width}
	return p
}

// fit checks that values stay within the range that was named, and that within the
// grid: nothing but append makes a grid grow.
func (b *book) fit(name string, values [][]any) (patch, error) {
	at, err := b.find(name)
	if err != nil {
		return patch{}, err
	}
	p := newPatch(at.grid, at.area, values)
	limit := at.area
	if at.cell { // the upper left corner of what is written
		limit.endRow, limit.endCol = max(limit.endRow, p.area.endRow), max(limit.endCol, p.area.endCol)
	}
	if limit.endRow > at.grid.rows || limit.endCol > at.grid.cols {
		return p, at.grid.beyond(limit)
	}
	if p.area.endRow > limit.endRow {
		return p, bad("Requested writing within range [%s], but tried writing to row [%d]", at.grid.a1(limit), limit.endRow+1)
	}
	if p.area.endCol > limit.endCol {
		return p, bad("Requested writing within range [%s], but tried writing to column [%s]", at.grid.a1(limit), columnName(limit.endCol))
	}
	return p, at.grid.takes(p)
}

// apply writes a patch and says what it touched.
func (p patch) apply(b *book) *api.UpdateValuesResponse {
	for i, line := range p.values {
		p.grid.put(p.area.row+i, p.area.col, line)
	}
	a := p.area
	out := &api.UpdateValuesResponse{
		SpreadsheetId: b.id, UpdatedCells: p.cells,
		UpdatedRows: int64(a.endRow - a.row), UpdatedColumns: int64(a.endCol - a.col),
	}
	a.endRow, a.endCol = max(a.endRow, a.row+1), max(a.endCol, a.col+1) // the range of nothing is its corner
	out.UpdatedRange = p.grid.a1(a)
	return out
}

func prepareGet(r request) (apply, error) {
	form, err := readingFrom(r.query)
	return func(b *book) (any, error) {
		at, err := b.find(r.arg)
		if err != nil {
			return nil, err
		}
		return at.grid.read(at.clipped(), form), nil
	}, err
}

func prepareBatchGet(r request) (apply, error) {
	form, err := readingFrom(r.query)
	return func(b *book) (any, error) {
		out := &api.BatchGetValuesResponse{SpreadsheetId: b.id}
		for _, name := range r.query["ranges"] {
			at, err := b.find(name)
			if err != nil {
				return nil, err
			}
			out.ValueRanges = append(out.ValueRanges, at.grid.read(at.clipped(), form))
		}
		return out, nil
	}, err
}

// bodyRange is a single write's values, whose range is in the address.
func bodyRange(r request) ([][]any, error) {
	var v api.ValueRange
	if err := decode(r.body, &v); err != nil {
		return nil, err
	}
	if v.Range != "" && v.Range != r.arg {
		return nil, bad("Requested writing to range %s, but the body names %s", r.arg, v.Range)
	}
	return input(&v, r.query.Get("valueInputOption"), "values")
}

func prepareUpdate(r request) (apply, error) {
	values, err := bodyRange(r)
	return func(b *book) (any, error) {
		p, err := b.fit(r.arg, values)
		if err != nil {
			return nil, err
		}
		return p.apply(b), nil
	}, err
}

func prepareBatchUpdate(r request) (apply, error) {
	var req api.BatchUpdateValuesRequest
	if err := decode(r.body, &req); err != nil {
		return nil, err
	}
	for _, v := range req.Data {
		values, err := input(v, req.ValueInputOption, "data.values")
		if err != nil {
			return nil, err
		}
		v.Values = values
	}
	return func(b *book) (any, error) {
		patches := make([]patch, len(req.Data))
		for i, v := range req.Data {
			p, err := b.fit(v.Range, v.Values)
			if err != nil {
				return nil, inData(i, err)
			}
			patches[i] = p
		}
		out := &api.BatchUpdateValuesResponse{SpreadsheetId: b.id}
		var touched []*grid
		for _, p := range patches {
			one := p.apply(b)
			out.Responses = append(out.Responses, one)
			out.TotalUpdatedRows += one.UpdatedRows
			out.TotalUpdatedColumns += one.UpdatedColumns
			out.TotalUpdatedCells += one.UpdatedCells
			if !slices.Contains(touched, p.grid) {
				touched = append(touched, p.grid)
			}
		}
		out.TotalUpdatedSheets = int64(len(touched))
		return out, nil
	}, nil
}

// prepareAppend writes below the last table that the range touches, from the table's
// first column on. Done twice it writes twice, as in Sheets.
func prepareAppend(r request) (apply, error) {
	values, err := bodyRange(r)
	if err != nil {
		return nil, err
	}
	insert := r.query.Get("insertDataOption")
	if err := oneOf("insert_data_option", insert, "", "OVERWRITE", "INSERT_ROWS"); err != nil {
		return nil, err
	}
	return func(b *book) (any, error) {
		at, err := b.find(r.arg)
		if err != nil {
			return nil, err
		}
		out := &api.AppendValuesResponse{SpreadsheetId: b.id}
		g, start := at.grid, at.clipped()
		if table, ok := g.table(start); ok {
			out.TableRange = g.a1(table)
			start = area{row: table.endRow, col: table.col}
		}
		p := newPatch(g, start, values)
		if p.area.endCol > g.cols {
			return nil, g.beyond(p.area)
		}
		grow := max(0, p.area.endRow-g.rows)
		between := insert == "INSERT_ROWS" && out.TableRange != "" && start.row < g.rows
		if between {
			grow = len(values)
		}
		if err := b.room(grow * g.cols); err != nil {
			return nil, err
		}
		if between {
			b.insert(g, rowsDimension, start.row, grow)
		} else {
			g.extend(grow)
			g.rows += grow
		}
		out.Updates = p.apply(b)
		return out, nil
	}, nil
}

// table finds the last block of filled cells that an area touches: as far as there is
// no empty row or column around it.
func (g *grid) table(in area) (area, bool) {
	for r := min(in.endRow, len(g.cells)) - 1; r >= in.row; r-- {
		for c := in.col; c < min(in.endCol, len(g.cells[r])); c++ {
			if g.cells[r][c] == nil {
				continue
			}
			t := area{r, c, r + 1, c + 1}
			for grew := true; grew; {
				grew = false
				for t.row > 0 && !g.blank(area{t.row - 1, t.col - 1, t.row, t.endCol + 1}) {
					t.row, grew = t.row-1, true
				}
				for !g.blank(area{t.endRow, t.col - 1, t.endRow + 1, t.endCol + 1}) {
					t.endRow, grew = t.endRow+1, true
				}
				for t.col > 0 && !g.blank(area{t.row - 1, t.col - 1, t.endRow + 1, t.col}) {
					t.col, grew = t.col-1, true
				}
				for !g.blank(area{t.row - 1, t.endCol, t.endRow + 1, t.endCol + 1}) {
					t.endCol, grew = t.endCol+1, true
				}
			}
			return t, true
		}
	}
	return area{}, false
}

func prepareClear(r request) (apply, error) {
	err := decode(r.body, &api.ClearValuesRequest{})
	return func(b *book) (any, error) {
		at, err := b.find(r.arg)
		if err != nil {
			return nil, err
		}
		if at.grid.guards(at.clipped()) {
			return nil, errProtected()
		}
		at.grid.clear(at.clipped())
		return &api.ClearValuesResponse{SpreadsheetId: b.id, ClearedRange: at.grid.a1(at.clipped())}, nil
	}, err
}

func prepareBatchClear(r request) (apply, error) {
	var req api.BatchClearValuesRequest
	err := decode(r.body, &req)
	return func(b *book) (any, error) {
		out := &api.BatchClearValuesResponse{SpreadsheetId: b.id}
		places := make([]place, len(req.Ranges))
		for i, name := range req.Ranges {
			at, err := b.find(name)
			if err != nil {
				return nil, err
			}
			if at.grid.guards(at.clipped()) {
				return nil, errProtected()
			}
			places[i] = at
			out.ClearedRanges = append(out.ClearedRanges, at.grid.a1(at.clipped()))
		}
		for _, at := range places {
			at.grid.clear(at.clipped())
		}
		return out, nil
	}, err
}
