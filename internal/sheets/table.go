package sheets

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	api "google.golang.org/api/sheets/v4"
)

// A want is what the rows of one tab should be.
type want struct {
	rows  map[string][]any // by key; each as long as the tab has columns, the key first
	order []string         // the keys as they came: in this order new rows are added
	gone  map[string]bool  // keys whose record was deleted
}

func newWant() *want { return &want{rows: map[string][]any{}, gone: map[string]bool{}} }

func (w *want) add(key string, cells []any) {
	if _, ok := w.rows[key]; !ok {
		w.order = append(w.order, key)
	}
	w.rows[key] = cells
	delete(w.gone, key)
}

func (w *want) drop(key string) {
	if _, ok := w.rows[key]; ok {
		w.order = slices.DeleteFunc(w.order, func(k string) bool { return k == key })
		delete(w.rows, key)
	}
	w.gone[key] = true
}

// A layout is where a tab's header and columns are. A person may have inserted
// columns between ours, or rows above the header.
type layout struct {
	head int   // the header's row, from 0
	at   []int // the place of each of the tab's columns, from 0
}

// mark stands in a row's last column from when its key was written until its cells
// are: a key beside it may have landed in somebody else's row.
const mark = "…"

// An edit writes some cells of one row: its key, with the mark, or its other cells,
// never both. See the package comment for why.
type edit struct {
	id     rowID // the row that it is for; no key: the header
	row    int   // from 0
	at     []int // columns
	values []any
}

// locate finds the header and the columns. fix are the header cells to write where
// some are missing. insert asks for a row or a column at the very beginning first,
// since the place of the header or of the key is taken: "ROWS", "COLUMNS" or "".
func locate(t int, grid [][]string) (lay layout, fix []edit, insert string) {
	columns := tabs[t].columns
	head, best := -1, 0
	for r, row := range grid {
		n := 0
		for _, name := range columns {
			if slices.Contains(row, name) {
				n++
			}
		}
		if n > best && n > len(columns)/2 {
			head, best = r, n
		}
	}
	if head < 0 {
		if len(grid) > 0 && strings.Join(grid[0], "") != "" {
			return layout{}, nil, "ROWS"
		}
		head = 0
	}
	lay = layout{head: head, at: make([]int, len(columns))}
	var row []string
	if head < len(grid) {
		row = grid[head]
	}
	heading := func(c int) string {
		if c < len(row) {
			return row[c]
		}
		return ""
	}
	for i, name := range columns {
		lay.at[i] = slices.Index(row, name)
	}
	if lay.at[0] < 0 && slices.Contains(columns, heading(0)) {
		return layout{}, nil, "COLUMNS"
	}
	width := 0 // of all that is used
	for _, r := range grid {
		width = max(width, len(r))
	}
	for i := range columns {
		if lay.at[i] >= 0 {
			continue
		}
		// Its heading was changed when the place is where it should be, between its
		// neighbours. Otherwise the column was deleted: it goes to the far right, where
		// nothing of anybody's is.
		natural := 0
		if i > 0 {
			natural = lay.at[i-1] + 1
		}
		next := i + 1
		for next < len(columns) && lay.at[next] < 0 {
			next++
		}
		switch free := !slices.Contains(lay.at, natural); {
		case i == 0, free && natural >= width:
			lay.at[i] = natural
		case free && next < len(columns) && lay.at[next] == natural+next-i:
			lay.at[i] = natural
		case free && heading(natural) == "" && best == 0:
			lay.at[i] = natural // the whole header was missing
		default:
			lay.at[i] = width
		}
		width = max(width, lay.at[i]+1)
		fix = append(fix, edit{id: rowID{tab: t}, row: head, at: lay.at[i : i+1], values: []any{columns[i]}})
	}
	return lay, fix, ""
}

// A line is a row of the sheet as it was read.
type line struct {
	row    int
	key    string
	cells  []string // ours without the key
	blank  bool     // all cells are, or have the mark
	marked bool     // the key is new here, perhaps by accident
	extras bool     // a person has written something into the row's other columns
}

// lines takes a grid apart, the header left out.
func lines(lay layout, grid [][]string) []*line {
	var out []*line
	for r, row := range grid {
		if r == lay.head {
			continue
		}
		l := &line{row: r, cells: make([]string, len(lay.at)-1), blank: true}
		for c, v := range row {
			switch i := slices.Index(lay.at, c); {
			case v == "":
			case i == 0:
				l.key = v
			case i > 0:
				l.cells[i-1] = v
				l.marked = l.marked || i == len(lay.at)-1 && v == mark
				l.blank = l.blank && l.marked
			default:
				l.extras = true
			}
		}
		out = append(out, l)
	}
	return out
}

// like counts the cells that say what a row should say: those that are equal of
// those that should not be blank.
func (l *line) like(cells []any) (equal, filled int) {
	for i, c := range cells[min(1, len(cells)):] {
		if t := text(c); t != "" {
			filled++
			if l.cells[i] == t {
				equal++
			}
		}
	}
	return equal, filled
}

func (l *line) is(cells []any) bool {
	for i, c := range cells[1:] {
		if l.cells[i] != text(c) {
			return false
		}
	}
	return true
}

// plan says what to write next so that the tab becomes what it should be; nothing
// when it is. It has to be asked again, over a fresh reading, after each answer:
//
//  1. keys that were overwritten, first and alone: until they are back, the cells
//     beside them are all that tells whose row it is;
//  2. then cells, of rows with the right key;
//  3. then keys of new rows, below everything, and the keys of rows to be emptied.
//
// Rows with a key that was never ours are left alone. Where a key has several rows,
// the one with a person's own notes stays.
func plan(t int, lay layout, grid [][]string, w *want, refused func(rowID, []any) bool) []edit {
	all := lines(lay, grid)
	byKey := map[string][]*line{}
	for _, l := range all {
		if l.key != "" {
			byKey[l.key] = append(byKey[l.key], l)
		}
	}
	if claims := claim(w, all, byKey); len(claims) > 0 {
		var edits []edit
		for l, key := range claims {
			edits = append(edits, keyEdit(rowID{t, key}, lay, l.row, w.rows[key][0]))
		}
		slices.SortFunc(edits, func(a, b edit) int { return cmp.Compare(a.row, b.row) })
		return edits
	}

	var cells, keys []edit
	empty := func(l *line) {
		if !l.blank || l.marked {
			blank := make([]any, len(lay.at)-1)
			for i := range blank {
				blank[i] = ""
			}
			cells = append(cells, edit{id: rowID{t, l.key}, row: l.row, at: lay.at[1:], values: blank})
			return
		}
		keys = append(keys, edit{id: rowID{t, l.key}, row: l.row, at: lay.at[:1], values: []any{""}})
	}
	next := used(grid, lay)
	for _, key := range w.order {
		should := w.rows[key]
		rows := byKey[key]
		if len(rows) == 0 {
			keys = append(keys, keyEdit(rowID{t, key}, lay, next, should[0]))
			next++
			continue
		}
		stays := slices.MaxFunc(rows, func(a, b *line) int {
			if a.extras != b.extras {
				return map[bool]int{true: 1, false: -1}[a.extras]
			}
			na, _ := a.like(should)
			nb, _ := b.like(should)
			return cmp.Or(cmp.Compare(na, nb), cmp.Compare(b.row, a.row))
		})
		if !stays.is(should) && !refused(rowID{t, key}, should) {
			cells = append(cells, edit{id: rowID{t, key}, row: stays.row, at: lay.at[1:], values: should[1:]})
		}
		for _, l := range rows {
			if l != stays {
				empty(l)
			}
		}
	}
	for key := range w.gone {
		for _, l := range byKey[key] {
			empty(l)
		}
	}
	if len(cells) > 0 {
		slices.SortFunc(cells, func(a, b edit) int { return cmp.Compare(a.row, b.row) })
		return cells
	}
	slices.SortFunc(keys, func(a, b edit) int { return cmp.Compare(a.row, b.row) })
	return keys
}

// keyEdit writes a key where it was not before.
func keyEdit(id rowID, lay layout, row int, key any) edit {
	last := len(lay.at) - 1
	return edit{id: id, row: row, at: []int{lay.at[0], lay.at[last]}, values: []any{key, mark}}
}

// used is the first row below everything that is written, by anybody.
func used(grid [][]string, lay layout) int {
	for r := len(grid); r > lay.head+1; r-- {
		if strings.Join(grid[r-1], "") != "" {
			return r
		}
	}
	return lay.head + 1
}

// tooCommon is from how many rows on a value says nothing about whose row it is in.
const tooCommon = 50

// claim finds the rows of keys that are in no row any more, or alone in an otherwise
// blank one, by what stands in the other cells: at least half of what should. It looks
// only at rows whose own key has no right to them: one that is missing, or never was
// ours, or is in other rows too, or is marked. byKey is changed accordingly.
func claim(w *want, all []*line, byKey map[string][]*line) map[*line]string {
	type match struct {
		line  *line
		key   string
		equal int
	}
	type value struct {
		column int
		text   string
	}
	alone := func(l *line) bool { return l.blank && !l.extras }
	claims, claimed := map[*line]string{}, map[string]bool{}
	for {
		var doubtful []match
		for _, l := range all {
			if !l.blank && claims[l] == "" && (w.rows[l.key] == nil || len(byKey[l.key]) > 1 || l.marked) {
				own, _ := l.like(w.rows[l.key])
				doubtful = append(doubtful, match{line: l, equal: own})
			}
		}
		if len(doubtful) == 0 {
			return claims
		}
		missing := map[value][]string{} // the keys of which it is a cell
		for _, key := range w.order {
			if claimed[key] || slices.ContainsFunc(byKey[key], func(l *line) bool { return !alone(l) }) {
				continue
			}
			for i, c := range w.rows[key][1:] {
				if t := text(c); t != "" {
					missing[value{i, t}] = append(missing[value{i, t}], key)
				}
			}
		}
		var matches []match
		for _, d := range doubtful {
			seen := map[string]bool{d.line.key: true}
			for i, t := range d.line.cells {
				keys := missing[value{i, t}]
				if len(keys) > tooCommon {
					continue
				}
				for _, key := range keys {
					if equal, filled := d.line.like(w.rows[key]); !seen[key] && equal*2 >= filled && equal > d.equal {
						matches = append(matches, match{d.line, key, equal})
					}
					seen[key] = true
				}
			}
		}
		if len(matches) == 0 {
			return claims
		}
		slices.SortStableFunc(matches, func(a, b match) int { return cmp.Compare(b.equal, a.equal) })
		for _, m := range matches {
			if claimed[m.key] || claims[m.line] != "" {
				continue
			}
			byKey[m.line.key] = slices.DeleteFunc(byKey[m.line.key], func(l *line) bool { return l == m.line })
			byKey[m.key] = append(byKey[m.key], m.line)
			claims[m.line], claimed[m.key] = m.key, true
		}
	}
}

// column names a column: 0 → "A", 26 → "AA".
func column(c int) string {
	name := ""
	for c++; c > 0; c = (c - 1) / 26 {
		name = string(rune('A'+(c-1)%26)) + name
	}
	return name
}

// area is a range in A1 notation; rows and columns from 0, the last ones included.
func area(t, row, col, lastRow, lastCol int) string {
	return fmt.Sprintf("'%s'!%s%d:%s%d", tabs[t].title, column(col), row+1, column(lastCol), lastRow+1)
}

// ranges turns edits, sorted by row within each tab, into as few ranges as possible.
func ranges(edits []edit) []*api.ValueRange {
	type block struct {
		tab, row, col int
		values        [][]any
	}
	var blocks []*block
	open := map[[2]int]*block{} // the last one by tab and first column
	for _, e := range edits {
		order := make([]int, len(e.at))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(e.at[a], e.at[b]) })
		for from := 0; from < len(order); {
			to := from + 1
			for to < len(order) && e.at[order[to]] == e.at[order[to-1]]+1 {
				to++
			}
			values := make([]any, 0, to-from)
			for _, i := range order[from:to] {
				values = append(values, e.values[i])
			}
			id := [2]int{e.id.tab, e.at[order[from]]}
			b := open[id]
			if b == nil || b.row+len(b.values) != e.row || len(b.values[0]) != len(values) {
				b = &block{tab: e.id.tab, row: e.row, col: id[1]}
				open[id] = b
				blocks = append(blocks, b)
			}
			b.values = append(b.values, values)
			from = to
		}
	}
	out := make([]*api.ValueRange, len(blocks))
	for i, b := range blocks {
		out[i] = &api.ValueRange{
			MajorDimension: "ROWS",
			Range:          area(b.tab, b.row, b.col, b.row+len(b.values)-1, b.col+len(b.values[0])-1),
			Values:         b.values,
		}
	}
	return out
}
