package sheets

import "slices"

// maxLooks is how often a row's cells are written before they count as not kept.
const maxLooks = 2

// newRow gives a key that has no row the next free one.
func (w *Writer) newRow(p *page, j *job, free *int) (e edit, ok bool) {
	if j.cells == nil {
		j.done = true
		return e, false
	}
	for slices.ContainsFunc(p.sheet.merges, func(m block) bool { return *free >= m.row && *free < m.endRow }) {
		*free++
	}
	key := p.layout.at[0]
	if no, shut := w.refused[cell{j.id, 0}]; shut {
		w.hitRow(p, j.id.key, *free, []int{0}, no.words)
		j.done, j.aside = true, true
		return e, false
	}
	for _, b := range p.sheet.locked {
		if b.has(*free, key) {
			if b.endRow < p.sheet.rows {
				*free = b.endRow // below it there is room
				continue
			}
			w.hitLocked(p, b)
			j.done, j.aside = true, true
			return e, false
		}
	}
	e = p.keyEdit(j.id.key, *free)
	if m := e.at[1]; p.sheet.isLocked(*free, m) || w.barred[place{p.tab, tabs[p.tab].mark}] != "" {
		e.at, e.values = e.at[:1], e.values[:1]
	}
	*free++
	return e, true
}

// rewrite says what to write into a row that has its key. Cells that Google does not let
// us write are left out, and noted.
func (w *Writer) rewrite(p *page, j *job, l *line) (e edit, ok bool) {
	if j.cells == nil {
		return w.empty(p, j, l)
	}
	if j.shows == nil {
		j.shows = w.shows(p.tab, j.cells)
	}
	e = edit{id: j.id, row: l.row}
	differs := false
	var wrong, refused []int
	said := ""
	for i, v := range inZone(j.cells, w.zone) {
		if i == 0 {
			continue
		}
		c := p.layout.at[i]
		right := l.cells[i-1] == j.shows[i]
		if w.shut(p, j, l.row, i, right) {
			continue
		}
		if no, shut := w.refused[cell{j.id, i}]; shut && !right && no.value == text(v) {
			refused, said = append(refused, i), no.words
			continue
		}
		if !right {
			differs = true
			wrong = append(wrong, i)
		}
		e.at, e.values = append(e.at, c), append(e.values, v)
	}
	if differs && j.wrote >= maxLooks {
		said = "the cell does not keep what is written into it."
		for _, i := range wrong {
			w.refused[cell{j.id, i}] = turnedDown{text(inZone(j.cells, w.zone)[i]), said}
		}
		refused, differs = append(refused, wrong...), false
	}
	if len(refused) > 0 {
		w.hitRow(p, j.id.key, l.row, refused, said)
		j.aside = true
	}
	if !differs {
		j.done = true
		return e, false
	}
	return e, true
}

// empty takes a row's cells away, unless one of them is locked.
func (w *Writer) empty(p *page, j *job, l *line) (e edit, ok bool) {
	e = p.emptyEdit(l)
	for _, c := range e.at {
		if b, locked := within(p.sheet.locked, l.row, c); locked {
			w.hitLocked(p, b)
			j.done, j.aside = true, true
			return e, false
		}
	}
	return e, true
}

// shut says whether a row's cell of one of our columns can't be written: it is locked, or
// part of a merged cell, or of a column that Google turned down. Unless it shows what is
// right all the same, the row is set aside.
func (w *Writer) shut(p *page, j *job, row, column int, right bool) bool {
	at := p.layout.at[column]
	switch locked, isLocked := within(p.sheet.locked, row, at); {
	case isLocked:
		if !right {
			w.hitLocked(p, locked)
		}
	case p.sheet.covered(row, at):
		if right = j.shows[column] == ""; !right {
			merged, _ := within(p.sheet.merges, row, at)
			w.hitMerged(p, merged)
		}
	default:
		words, barred := w.barred[place{p.tab, column}]
		if !barred {
			return false
		}
		if !right {
			w.hitColumn(p, column, words)
		}
	}
	j.aside = j.aside || !right
	return true
}

// within gives the block that a cell is in.
func within(blocks []block, row, col int) (b block, ok bool) {
	i := slices.IndexFunc(blocks, func(b block) bool { return b.has(row, col) })
	if i < 0 {
		return b, false
	}
	return blocks[i], true
}
