package sheets

import (
	"cmp"
	"slices"

	api "google.golang.org/api/sheets/v4"
)

// mark stands in a row's column for it from when its key was written until its cells
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

// A line is a row of the sheet as it was read.
type line struct {
	row    int
	key    string
	cells  []string // ours without the key
	blank  bool     // all cells are, or have the mark
	marked bool     // the key is new here, perhaps by accident
	extras bool     // a person has written something into the row's other columns
}

// lines takes rows of a grid apart, the first of which is row from of the sheet. The
// header is left out.
func (p *page) lines(grid [][]string, from int) []*line {
	out := make([]*line, 0, len(grid))
	for r, row := range grid {
		if from+r != p.layout.head {
			out = append(out, p.line(row, from+r))
		}
	}
	return out
}

func (p *page) line(row []string, at int) *line {
	columns := tabs[p.tab].columns
	l := &line{row: at, cells: make([]string, len(columns)-1), blank: true}
	for c, v := range row {
		if v == "" {
			continue
		}
		switch i := slices.Index(p.layout.at, c); {
		case i == 0:
			l.key = v
		case i > 0:
			l.cells[i-1] = columns[i].kind.shown(v)
			if i == tabs[p.tab].mark && v == mark {
				l.marked = true
			} else if v != unchecked {
				l.blank = false
			}
		case v != unchecked:
			l.extras = true
		}
	}
	return l
}

// unchecked is what an empty checkbox holds: nothing that anybody wrote.
const unchecked = "FALSE"

// like counts the cells that say what a row should say: those that are equal of
// those that should not be blank.
func (l *line) like(cells []string) (equal, filled int) {
	for i, t := range cells[min(1, len(cells)):] {
		if t != "" {
			filled++
			if l.cells[i] == t {
				equal++
			}
		}
	}
	return equal, filled
}

// keyEdit writes a key where it was not before.
func (p *page) keyEdit(key string, row int) edit {
	return edit{id: rowID{p.tab, key}, row: row, at: []int{p.layout.at[0], p.layout.at[tabs[p.tab].mark]}, values: []any{key, mark}}
}

// emptyEdit takes out of a row what is ours: the cells first, and when they are blank,
// the key.
func (p *page) emptyEdit(l *line) edit {
	if l.blank && !l.marked {
		return edit{id: rowID{p.tab, l.key}, row: l.row, at: p.layout.at[:1], values: []any{""}}
	}
	blank := make([]any, len(p.layout.at)-1)
	for i := range blank {
		blank[i] = ""
	}
	return edit{id: rowID{p.tab, l.key}, row: l.row, at: p.layout.at[1:], values: blank}
}

// tooCommon is from how many rows on a value says nothing about whose row it is in.
const tooCommon = 50

// claim finds the rows of keys that are in no row any more, or alone in an otherwise
// blank one, by what stands in the other cells: at least half of what should. It looks
// only at lines whose own key has no right to them: one that is missing, or never was
// ours, or is in other rows too, or is marked. want has what the rows of missing keys,
// and of those lines' keys, should show, and order the missing keys. byKey has the
// lines of a key, and is changed accordingly.
func claim(want map[string][]string, order []string, all []*line, byKey map[string][]*line) map[*line]string {
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
			if !l.blank && claims[l] == "" && (want[l.key] == nil || len(byKey[l.key]) > 1 || l.marked) {
				own, _ := l.like(want[l.key])
				doubtful = append(doubtful, match{line: l, equal: own})
			}
		}
		if len(doubtful) == 0 {
			return claims
		}
		missing := map[value][]string{} // the keys of which it is a cell
		for _, key := range order {
			if claimed[key] || want[key] == nil || slices.ContainsFunc(byKey[key], func(l *line) bool { return !alone(l) }) {
				continue
			}
			for i, t := range want[key][1:] {
				if t != "" {
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
					if equal, filled := d.line.like(want[key]); !seen[key] && equal*2 >= filled && equal > d.equal {
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

// ranges turns edits, sorted by row within each tab, into as few ranges as possible.
func ranges(pages *[numTabs]*page, edits []edit) []*api.ValueRange {
	type part struct {
		tab, row, col int
		values        [][]any
	}
	var parts []*part
	open := map[[2]int]*part{} // the last one by tab and first column
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
				b = &part{tab: e.id.tab, row: e.row, col: id[1]}
				open[id] = b
				parts = append(parts, b)
			}
			b.values = append(b.values, values)
			from = to
		}
	}
	out := make([]*api.ValueRange, len(parts))
	for i, b := range parts {
		out[i] = &api.ValueRange{
			MajorDimension: "ROWS",
			Range:          pages[b.tab].sheet.area(block{b.row, b.col, b.row + len(b.values), b.col + len(b.values[0])}),
			Values:         b.values,
		}
	}
	return out
}
