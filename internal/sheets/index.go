package sheets

import (
	"cmp"
	"context"
	"slices"
)

// index reads which key is in which row, and gives the edits that have to come before
// anything else: keys that were overwritten, and rows of a key that has another one.
func (w *Writer) index(ctx context.Context, pages *[numTabs]*page, keys *[numTabs]known) ([]edit, error) {
	var areas []string
	for _, p := range pages {
		if p != nil {
			key, m := p.layout.at[0], p.layout.at[tabs[p.tab].mark]
			areas = append(areas, p.sheet.area(block{0, key, p.sheet.rows, key + 1}), p.sheet.area(block{0, m, p.sheet.rows, m + 1}))
		}
	}
	if len(areas) == 0 {
		return nil, nil
	}
	grids, err := w.client.get(ctx, areas)
	if err != nil {
		return nil, err
	}
	var edits []edit
	w.lost = 0
	for _, p := range pages {
		if p == nil {
			continue
		}
		doubtful, lost := p.enter(grids[0], grids[1], &keys[p.tab])
		grids = grids[2:]
		if w.lost += len(lost); len(lost) > 0 {
			w.due = true
		}
		if len(doubtful)+len(lost) == 0 {
			continue
		}
		lines, err := w.lookInto(ctx, p, doubtful)
		if err != nil {
			return nil, err
		}
		mend, err := w.mend(ctx, p, lines, lost, &keys[p.tab])
		if err != nil {
			return nil, err
		}
		edits = append(edits, mend...)
	}
	return edits, nil
}

// enter fills a page from its columns of keys and marks. doubtful are the rows whose key
// may not be theirs, lost the keys that are in no row.
func (p *page) enter(keys, marks [][]string, all *known) (doubtful []int, lost []string) {
	cellOf := func(grid [][]string, r int) string {
		if r < len(grid) && len(grid[r]) > 0 {
			return grid[r][0]
		}
		return ""
	}
	rows := max(len(keys), len(marks))
	p.keys = make([]string, 0, rows)
	p.used = p.layout.head + 1
	var blank, foreign, twice []int
	for r := range rows {
		key, m := cellOf(keys, r), cellOf(marks, r)
		if r == p.layout.head || p.sheet.covered(r, p.layout.at[0]) {
			p.keys = append(p.keys, "")
			continue
		}
		if r > p.layout.head && (key != "" && key != unchecked || m != "" && m != unchecked) {
			p.used = r + 1
		}
		p.keys = append(p.keys, key)
		if key == "" || key == unchecked {
			blank = append(blank, r)
			continue
		}
		first, again := p.at[key]
		if again {
			twice = append(twice, first, r)
		} else {
			p.at[key] = r
		}
		if _, ours := all.live[key]; !ours {
			foreign = append(foreign, r)
		}
		if m == mark {
			doubtful = append(doubtful, r)
		}
	}
	for _, key := range all.order {
		if _, there := p.at[key]; !there && all.live[key] {
			lost = append(lost, key)
		}
	}
	doubtful = append(doubtful, twice...)
	if len(lost) > 0 {
		doubtful = append(append(doubtful, foreign...), slices.DeleteFunc(blank, func(r int) bool { return r >= p.used })...)
	}
	slices.Sort(doubtful)
	return slices.Compact(doubtful), lost
}

// lookInto reads rows of a page, and all that is below what has a key.
func (w *Writer) lookInto(ctx context.Context, p *page, rows []int) ([]*line, error) {
	var lines []*line
	var parts []block
	for _, r := range rows {
		if n := len(parts); n > 0 && r-parts[n-1].endRow < 20 {
			parts[n-1].endRow = r + 1
		} else {
			parts = append(parts, block{r, 0, r + 1, p.sheet.cols})
		}
	}
	if p.used < p.sheet.rows {
		parts = append(parts, block{p.used, 0, p.sheet.rows, p.sheet.cols})
	}
	var whole []block
	for _, b := range parts {
		for ; b.endRow-b.row > sliceRows; b.row += sliceRows {
			whole = append(whole, block{b.row, b.col, b.row + sliceRows, b.endCol})
		}
		whole = append(whole, b)
	}
	for len(whole) > 0 {
		n, size := 0, 0
		for n < len(whole) && n < maxRuns && (n == 0 || size+whole[n].endRow-whole[n].row <= sliceRows) {
			size += whole[n].endRow - whole[n].row
			n++
		}
		areas := make([]string, n)
		for i, b := range whole[:n] {
			areas[i] = p.sheet.area(b)
		}
		grids, err := w.client.get(ctx, areas)
		if err != nil {
			return nil, err
		}
		for i, b := range whole[:n] {
			for _, l := range p.lines(grids[i], b.row) {
				if _, asked := slices.BinarySearch(rows, l.row); asked || l.row >= b.row && b.row >= p.used {
					lines = append(lines, l)
				}
			}
			if b.row >= p.used && len(whole) == n && i == n-1 {
				for _, l := range slices.Backward(lines) {
					if l.row >= b.row && (l.key != "" || !l.blank || l.extras || l.marked) {
						p.used = max(p.used, l.row+1)
						break
					}
				}
			}
		}
		whole = whole[n:]
	}
	return slices.DeleteFunc(lines, func(l *line) bool { return p.sheet.covered(l.row, p.layout.at[0]) }), nil
}

// mend says what to write next so that keys are where they belong; nothing when they
// are. It is asked again, over a fresh reading, after each answer: keys that were
// overwritten come first and alone, since until they are back the cells beside them are
// all that tells whose row it is; then the cells of rows whose key has another one, then
// the keys of these. The one with a person's own notes stays.
func (w *Writer) mend(ctx context.Context, p *page, lines []*line, lost []string, all *known) ([]edit, error) {
	byKey := map[string][]*line{}
	strange := false // a line with cells and no right to its key
	var own []string
	for _, l := range lines {
		if l.key != "" {
			byKey[l.key] = append(byKey[l.key], l)
		}
	}
	for _, l := range lines {
		_, ours := all.live[l.key]
		if ours && l.key != "" {
			own = append(own, l.key)
		}
		strange = strange || !l.blank && (!ours || l.marked || len(byKey[l.key]) > 1)
	}
	want := map[string][]string{}
	load := func(keys []string) error {
		for part := range slices.Chunk(keys, sliceRows) {
			rows, err := w.read(ctx, p.tab, part)
			if err != nil {
				return err
			}
			for key, cells := range rows {
				if cells != nil {
					want[key] = w.shows(p.tab, cells)
				}
			}
		}
		return nil
	}
	if err := load(own); err != nil {
		return nil, err
	}
	if strange {
		likely, err := w.likely(ctx, p.tab, lines, lost)
		if err != nil {
			return nil, err
		}
		if err := load(likely); err != nil {
			return nil, err
		}
	}
	// A key that is alone in a blank row may belong elsewhere.
	slices.Sort(own)
	order := slices.Concat(lost, slices.Compact(own))
	var edits []edit
	byRow := func(a, b edit) int { return cmp.Compare(a.row, b.row) }
	if strange {
		for l, key := range claim(want, order, lines, byKey) {
			if !p.sheet.isLocked(l.row, p.layout.at[0]) {
				edits = append(edits, p.keyEdit(key, l.row))
			}
		}
	}
	if len(edits) > 0 {
		slices.SortFunc(edits, byRow)
		return edits, nil
	}
	var keys []edit
	for key, rows := range byKey {
		if len(rows) < 2 {
			continue
		}
		if _, ours := all.live[key]; !ours {
			continue
		}
		stays := slices.MaxFunc(rows, func(a, b *line) int {
			if a.extras != b.extras {
				return map[bool]int{true: 1, false: -1}[a.extras]
			}
			na, _ := a.like(want[key])
			nb, _ := b.like(want[key])
			return cmp.Or(cmp.Compare(na, nb), cmp.Compare(b.row, a.row))
		})
		p.at[key] = stays.row
		for _, l := range rows {
			if l == stays || p.sheet.isLocked(l.row, p.layout.at[0]) || p.sheet.isLocked(l.row, p.layout.at[1]) {
				continue
			}
			if e := p.emptyEdit(l); len(e.at) == 1 {
				keys = append(keys, e)
			} else {
				edits = append(edits, e)
			}
		}
	}
	if len(edits) == 0 {
		edits = keys
	}
	slices.SortFunc(edits, byRow)
	return edits, nil
}

// likely finds the lost keys whose rows some lines may be, without holding the rows of
// all of them: there are many while a sheet is built.
func (w *Writer) likely(ctx context.Context, t int, lines []*line, lost []string) ([]string, error) {
	type value struct {
		column int
		text   string
	}
	seen := map[value][]string{}
	for _, l := range lines {
		for i, text := range l.cells {
			if text != "" {
				seen[value{i, text}] = nil
			}
		}
	}
	for part := range slices.Chunk(lost, sliceRows) {
		rows, err := w.read(ctx, t, part)
		if err != nil {
			return nil, err
		}
		for _, key := range part {
			if rows[key] == nil {
				continue
			}
			for i, text := range w.shows(t, rows[key])[1:] {
				if keys, ok := seen[value{i, text}]; ok && len(keys) <= tooCommon {
					seen[value{i, text}] = append(keys, key)
				}
			}
		}
	}
	among := map[string]bool{}
	for _, keys := range seen {
		if len(keys) > tooCommon {
			continue
		}
		for _, k := range keys {
			among[k] = true
		}
	}
	var out []string
	for _, k := range lost {
		if among[k] {
			out = append(out, k)
		}
	}
	return out, nil
}

// small says whether all tabs together, with what they lack, are no more than a slice.
func (w *Writer) small() bool {
	if w.pages == nil {
		return false
	}
	rows := w.lost
	for _, p := range w.pages {
		if p != nil {
			rows += p.used
		}
	}
	return rows <= sliceRows
}

// sameHeadings says whether a tab's columns still are where they were.
func (p *page) sameHeadings(grid [][]string) bool {
	for i, name := range tabs[p.tab].names() {
		if len(grid) == 0 || p.layout.at[i] >= len(grid[0]) || grid[0][p.layout.at[i]] != name {
			return false
		}
	}
	return true
}
