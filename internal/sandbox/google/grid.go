package google

import (
	"cmp"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// Limits of a spreadsheet. https://support.google.com/drive/answer/37603
const (
	maxCells       = 10_000_000 // in the grids of all tabs together, empty ones too
	maxCellLength  = 50_000     // UTF-16 units
	defaultRows    = 1000
	defaultColumns = 26
)

// A book is a spreadsheet. Its sheets are in the order of their tabs, never none.
type book struct {
	id     string
	zone   string // the time zone, as Google names it
	sheets []*grid
	meta   []metadata
	names  []named
}

// A grid is a sheet. What lies right of a row's cells, or below the last, is empty.
// A cell holds nil, a string, a float64, a bool, a formula or a date.
//
// Changes of structure replace rows, and never write into one: a clone shares them.
type grid struct {
	id                     int64
	title                  string
	rows, cols             int
	frozenRows, frozenCols int
	cells                  [][]any

	merges  []area
	guarded []protection
	checks  []validation
	formats []format
	filter  *area
	tables  []table
}

// A formula is kept, and not computed: it reads as FormulaResult.
type formula string

// FormulaResult is what a formula's cell shows, as the stand-in computes nothing.
const FormulaResult = "#FORMULA!"

// A date is a number that is shown as a date.
type date struct {
	serial float64 // days since 1899-12-30
	text   string
}

// clone copies a book as far as changes of structure need it.
func (b *book) clone() *book {
	c := &book{id: b.id, zone: b.zone, meta: slices.Clone(b.meta), names: slices.Clone(b.names)}
	for _, g := range b.sheets {
		copied := *g
		copied.cells = slices.Clone(g.cells)
		copied.merges, copied.guarded, copied.checks = slices.Clone(g.merges), slices.Clone(g.guarded), slices.Clone(g.checks)
		copied.formats, copied.tables = slices.Clone(g.formats), slices.Clone(g.tables)
		c.sheets = append(c.sheets, &copied)
	}
	return c
}

func (b *book) tab(title string) *grid {
	for _, g := range b.sheets {
		if strings.EqualFold(g.title, title) {
			return g
		}
	}
	return nil
}

func (b *book) byID(id int64) *grid {
	for _, g := range b.sheets {
		if g.id == id {
			return g
		}
	}
	return nil
}

// room says whether the grids may grow by so many cells.
func (b *book) room(more int) error {
	for _, g := range b.sheets {
		more += g.rows * g.cols
	}
	if more > maxCells {
		return bad("This action would increase the number of cells in the workbook above the limit of %d cells.", maxCells)
	}
	return nil
}

func (g *grid) get(row, col int) any {
	if row < len(g.cells) && col < len(g.cells[row]) {
		return g.cells[row][col]
	}
	return nil
}

// put writes one row's values from a column on. nil leaves a cell alone, "" empties it.
func (g *grid) put(row, col int, values []any) {
	if row >= len(g.cells) {
		g.cells = slices.Grow(g.cells, row+1-len(g.cells))[:row+1]
	}
	line := g.cells[row]
	if n := col + len(values); n > len(line) {
		line = slices.Grow(line, n-len(line))[:n]
		g.cells[row] = line
	}
	for i, v := range values {
		if v != nil && g.covered(row, col+i) {
			continue // as Sheets does, without a word
		}
		switch v {
		case nil:
		case "":
			line[col+i] = nil
		default:
			line[col+i] = v
		}
	}
}

// used is the number of rows, and of columns, up to the last that is not empty.
func (g *grid) used() (rows, cols int) {
	for r, line := range g.cells {
		for c := len(line); c > 0; c-- {
			if line[c-1] != nil {
				rows, cols = r+1, max(cols, c)
				break
			}
		}
	}
	return rows, cols
}

// blank says whether a part of the grid is empty. The part may reach beyond it.
func (g *grid) blank(a area) bool {
	for r := max(a.row, 0); r < a.endRow; r++ {
		for c := max(a.col, 0); c < a.endCol; c++ {
			if g.get(r, c) != nil {
				return false
			}
		}
	}
	return true
}

func (g *grid) clear(a area) {
	for r := a.row; r < min(a.endRow, len(g.cells)); r++ {
		if line := g.cells[r]; a.col < len(line) {
			clear(line[a.col:min(a.endCol, len(line))])
		}
	}
}

func (g *grid) insertRows(at, n int) {
	g.rows += n
	if at < g.frozenRows {
		g.frozenRows += n
	}
	if at < len(g.cells) {
		g.cells = slices.Insert(g.cells, at, make([][]any, n)...)
	}
}

func (g *grid) deleteRows(at, end int) {
	g.rows -= end - at
	g.frozenRows -= max(0, min(end, g.frozenRows)-at)
	if at < len(g.cells) {
		g.cells = slices.Delete(g.cells, at, min(end, len(g.cells)))
	}
}

func (g *grid) insertColumns(at, n int) {
	g.cols += n
	if at < g.frozenCols {
		g.frozenCols += n
	}
	for r, line := range g.cells {
		if at < len(line) {
			g.cells[r] = slices.Concat(line[:at], make([]any, n), line[at:])
		}
	}
}

func (g *grid) deleteColumns(at, end int) {
	g.cols -= end - at
	g.frozenCols -= max(0, min(end, g.frozenCols)-at)
	for r, line := range g.cells {
		if at < len(line) {
			g.cells[r] = slices.Concat(line[:at], line[min(end, len(line)):])
		}
	}
}

// A sorting is one of the columns to sort by.
type sorting struct {
	col        int
	descending bool
}

// sort orders the rows of an area, keeping what lies beside it.
func (g *grid) sort(a area, by ...sorting) {
	g.permute(a, func(rows [][]any) {
		slices.SortStableFunc(rows, func(x, y []any) int {
			for _, s := range by {
				if d := compare(x[s.col-a.col], y[s.col-a.col], s.descending); d != 0 {
					return d
				}
			}
			return 0
		})
	})
}

// permute has the rows of an area put in another order.
func (g *grid) permute(a area, reorder func([][]any)) {
	a.endRow = min(a.endRow, len(g.cells))
	if a.endRow <= a.row {
		return
	}
	rows := make([][]any, a.endRow-a.row)
	for r := range rows {
		rows[r] = make([]any, a.endCol-a.col)
		for c := range rows[r] {
			rows[r][c] = g.get(a.row+r, a.col+c)
		}
	}
	reorder(rows)
	for r, part := range rows {
		line := g.cells[a.row+r]
		fresh := make([]any, max(len(line), a.endCol))
		copy(fresh, line)
		copy(fresh[a.col:], part)
		g.cells[a.row+r] = fresh
	}
}

// compare orders as Sheets does: numbers, texts without regard to case, booleans;
// empty cells come last, whichever the direction.
func compare(x, y any, descending bool) int {
	if x == nil || y == nil {
		return cmp.Compare(rank(x), rank(y))
	}
	d := cmp.Compare(rank(x), rank(y))
	if d == 0 {
		switch rank(x) {
		case 0:
			d = cmp.Compare(number(x), number(y))
		default:
			d = cmp.Compare(strings.ToLower(shown(x)), strings.ToLower(shown(y)))
		}
	}
	if descending {
		d = -d
	}
	return d
}

func rank(v any) int {
	switch v.(type) {
	case float64, date:
		return 0
	case string, formula:
		return 1
	case bool:
		return 2
	}
	return 3
}

func number(v any) float64 {
	if d, ok := v.(date); ok {
		return d.serial
	}
	f, _ := v.(float64)
	return f
}

// shown is a cell's text as a person sees it.
func shown(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		if math.Abs(v) >= 1e15 {
			return strconv.FormatFloat(v, 'E', -1, 64)
		}
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strings.ToUpper(strconv.FormatBool(v))
	case formula:
		return FormulaResult
	case date:
		return v.text
	}
	return ""
}

var numeric = regexp.MustCompile(`^[+-]?([0-9]+|[0-9]{1,3}(,[0-9]{3})+)?(\.[0-9]*)?([eE][+-]?[0-9]+)?$`)

// typed is what becomes of a text that a person types, or that is written with
// USER_ENTERED: a formula, a number, a boolean or a date where it looks like one.
func typed(s string) any {
	if quoted, ok := strings.CutPrefix(s, "'"); ok {
		return quoted
	}
	t := strings.TrimSpace(s)
	if n, err := strconv.ParseFloat(strings.ReplaceAll(t, ",", ""), 64); err == nil && numeric.MatchString(t) {
		return n
	}
	if len(t) > 1 && t[0] == '=' {
		return formula(t)
	}
	if len(t) > 1 && t[0] == '+' {
		return formula("=" + t)
	}
	switch strings.ToUpper(t) {
	case "TRUE":
		return true
	case "FALSE":
		return false
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05", "1/2/2006", "1/2/2006 15:04:05"} {
		if at, err := time.Parse(layout, t); err == nil {
			return date{at.Sub(time.Date(1899, 12, 30, 0, 0, 0, 0, time.UTC)).Hours() / 24, t}
		}
	}
	return s
}

// tooLong says whether a text is longer than a cell may hold.
func tooLong(s string) bool {
	if len(s) <= maxCellLength {
		return false
	}
	n := 0
	for _, r := range s {
		n += max(1, utf16.RuneLen(r))
	}
	return n > maxCellLength
}
