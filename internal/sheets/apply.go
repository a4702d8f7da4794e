package sheets

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"leadpipe/internal/outcome"
)

const (
	// maxBytes and maxRows bound one write. Google recommends at most 2 MB.
	maxBytes, maxRows = 1_800_000, 5_000
	// maxRuns is how many ranges of one tab are read apart; a URL holds no more.
	maxRuns = 40
	// sliceRows is how many rows are read at a time.
	sliceRows = 4_000
	// maxLooks is how often a row's cells are written before they count as not kept.
	maxLooks = 2
)

// A task is rows that are to be made what they should be, by one look and its writes
// after the other.
type task struct {
	jobs []*job
	idle int // looks in a row after which no row was done
}

// left are the rows that are not done.
func (t *task) left() []*job {
	return slices.DeleteFunc(slices.Clone(t.jobs), func(j *job) bool { return j.done })
}

// apply makes rows what they should be. It ends when these rows are in the sheet, or set
// aside, whatever else changes meanwhile. What it has done stays done when it fails.
func (w *Writer) apply(ctx context.Context, jobs []*job) error {
	t, began := &task{jobs: jobs}, w.client.now()
	for {
		left, err := w.advance(ctx, t)
		if err != nil || left == 0 {
			return err
		}
		if t.idle == 0 && w.client.now().Sub(began) > 3*patience {
			return outcome.Temporary(outcome.Conflict, fmt.Errorf("%d rows wait for quota", left))
		}
	}
}

// advance looks at rows of a task once, writes what is to be written next, and says how
// many rows are left then.
func (w *Writer) advance(ctx context.Context, t *task) (left int, err error) {
	before := t.left()
	if len(before) == 0 {
		return 0, nil
	}
	if w.pages == nil {
		if err := w.sync(ctx); err != nil {
			return len(before), err
		}
	}
	if err := w.step(ctx, w.part(before)); err != nil {
		return len(before), err
	}
	left = len(t.left())
	if t.idle++; left < len(before) {
		t.idle = 0
	}
	if t.idle >= maxRounds {
		return left, moving()
	}
	return left, nil
}

// part picks rows that one call can look at: as many as there is room for in the ranges
// of one reading.
func (w *Writer) part(jobs []*job) []*job {
	var part []*job
	for t, p := range w.pages {
		var own, fresh []*job
		for _, j := range jobs {
			switch {
			case j.id.tab != t:
			case p == nil:
				j.done, j.aside = true, true // the tab is set aside, and form has said why
			default:
				if _, there := p.at[j.id.key]; there {
					own = append(own, j)
				} else {
					fresh = append(fresh, j)
				}
			}
		}
		slices.SortStableFunc(own, func(a, b *job) int { return cmp.Compare(p.at[a.id.key], p.at[b.id.key]) })
		runs, rows, last := 0, 0, -1
		for _, j := range own {
			r := p.at[j.id.key]
			if last < 0 || r-last > runGap {
				runs, rows = runs+1, rows+1
			} else {
				rows += r - last
			}
			if runs > maxRuns || rows > sliceRows {
				break
			}
			part, last = append(part, j), r
		}
		part = append(part, fresh[:min(len(fresh), maxRows)]...)
	}
	return part
}

// runGap is how many rows apart two rows may be to be read in one range.
const runGap = 20

// A glance is what one reading shows of a page.
type glance struct {
	lines map[int]*line // by row
	tail  bool          // all below the used rows was read
}

// look reads, of the tabs that some jobs are about, the headings, the rows of their keys,
// those written last, the last one, and, for new rows, what is below. same says that
// columns and keys are where they were.
func (w *Writer) look(ctx context.Context, jobs []*job) (seen [numTabs]*glance, same bool, err error) {
	type piece struct {
		page *page
		at   block
	}
	var pieces []piece
	var areas []string
	for t, p := range w.pages {
		var rows []int
		about, fresh := false, false
		for _, j := range jobs {
			if j.id.tab != t {
				continue
			}
			about = true
			if r, there := p.at[j.id.key]; there {
				rows = append(rows, r)
			} else {
				fresh = fresh || j.cells != nil
			}
		}
		if !about {
			continue
		}
		for _, e := range p.unseen {
			rows = append(rows, e.row)
		}
		if fresh && p.used-1 > p.layout.head {
			rows = append(rows, p.used-1)
		}
		slices.Sort(rows)
		seen[t] = &glance{lines: map[int]*line{}, tail: fresh}
		add := func(b block) {
			pieces = append(pieces, piece{p, b})
			areas = append(areas, p.sheet.area(b))
		}
		add(block{p.layout.head, 0, p.layout.head + 1, p.sheet.cols})
		var run *block
		for _, r := range slices.Compact(rows) {
			if r >= p.sheet.rows {
				return seen, false, nil
			}
			if run != nil && r-run.endRow < runGap {
				run.endRow = r + 1
				continue
			}
			if run != nil {
				add(*run)
			}
			run = &block{r, 0, r + 1, p.sheet.cols}
		}
		if run != nil {
			add(*run)
		}
		if fresh && p.used < p.sheet.rows {
			add(block{p.used, 0, p.sheet.rows, p.sheet.cols})
		}
	}
	if len(areas) == 0 {
		return seen, true, nil
	}
	grids, err := w.client.get(ctx, areas)
	if err != nil {
		return seen, false, err
	}
	for i, piece := range pieces {
		p, b := piece.page, piece.at
		if b.row == p.layout.head {
			if !p.sameHeadings(grids[i]) {
				return seen, false, nil
			}
			continue
		}
		for r := b.row; r < b.endRow && (b.row < p.used || r-b.row < len(grids[i])); r++ {
			var row []string
			if r-b.row < len(grids[i]) {
				row = grids[i][r-b.row]
			}
			l := p.line(row, r)
			if seen[p.tab].lines[r] = l; r < len(p.keys) && p.keys[r] != l.key && !p.sheet.covered(r, p.layout.at[0]) {
				return seen, false, nil
			}
			if b.row >= p.used && l.key != "" && l.key != unchecked {
				return seen, false, nil // a key that we did not know to be there
			}
		}
	}
	return seen, true, nil
}

// shown says whether rows that were written and not looked at since are as they were
// written.
func (w *Writer) shown(p *page, g *glance) bool {
	for _, e := range p.unseen {
		l := g.lines[e.row]
		if l == nil || l.key != e.id.key {
			return false
		}
		for i, c := range e.at {
			k := slices.Index(p.layout.at, c)
			if k > 0 && l.cells[k-1] != tabs[p.tab].columns[k].kind.shown(text(e.values[i])) && !p.sheet.covered(e.row, c) {
				return false
			}
		}
	}
	return true
}

// step looks at rows and writes what is to be written next: the cells of rows that have
// their key, the keys of those that have none yet.
func (w *Writer) step(ctx context.Context, jobs []*job) error {
	if len(jobs) == 0 {
		return nil
	}
	if err := w.client.awaitWrite(ctx); err != nil {
		return err
	}
	seen, same, err := w.look(ctx, jobs)
	if err != nil {
		w.pages = nil
		return asMoved(err)
	}
	for t, g := range seen {
		if g == nil || !same {
			continue
		}
		p := w.pages[t]
		if !w.shown(p, g) {
			w.due = true // it landed in other rows
		}
		p.unseen = nil
	}
	if !same {
		for _, j := range jobs {
			w.due = w.due || j.wrote > 0
		}
		w.pages = nil
		return nil
	}
	if w.claim(jobs, seen) {
		w.pages = nil
		return nil
	}
	var edits []edit
	wrote := map[*job]bool{}
	var free [numTabs]int
	var former [numTabs][]int
	for t, p := range w.pages {
		if p == nil || seen[t] == nil {
			continue
		}
		free[t] = p.used
		for r, l := range seen[t].lines {
			if r >= p.used && (!l.blank || l.extras || l.marked) {
				free[t] = max(free[t], r+1)
			}
		}
		p.used = max(p.used, free[t])
	}
	for _, j := range jobs {
		p := w.pages[j.id.tab]
		row, there := p.at[j.id.key]
		if !there {
			if e, ok := w.newRow(p, j, &free[j.id.tab]); ok {
				edits = append(edits, e)
			}
			continue
		}
		l := seen[j.id.tab].lines[row]
		if l == nil {
			w.pages = nil
			return nil
		}
		e, ok := w.rewrite(p, j, l)
		if !ok {
			continue
		}
		edits = append(edits, e)
		wrote[j] = true
		former[j.id.tab] = datesAsText(former[j.id.tab], p, l)
	}
	if len(edits) == 0 {
		return nil
	}
	if err := w.carryOut(ctx, jobs, edits, wrote); err != nil {
		return err
	}
	for t, columns := range former {
		if len(columns) > 0 && w.pages != nil && w.pages[t] != nil {
			w.dress(ctx, w.pages[t], columns)
		}
	}
	return nil
}

// claim notes the jobs whose key landed in somebody else's row, perhaps, and says whether
// there are any for the first time: then all is read again, once for all of them.
func (w *Writer) claim(jobs []*job, seen [numTabs]*glance) (found bool) {
	for _, j := range jobs {
		row, there := w.pages[j.id.tab].at[j.id.key]
		if !there || j.cells == nil || j.claimed {
			continue
		}
		if l := seen[j.id.tab].lines[row]; l != nil && l.marked && (!l.blank || l.extras) {
			j.claimed, found = true, true
		}
	}
	return found
}

// carryOut writes edits that step came to, and notes what then is where.
func (w *Writer) carryOut(ctx context.Context, jobs []*job, edits []edit, wrote map[*job]bool) error {
	if !w.client.mayWrite() {
		l, err := w.client.list(ctx)
		if err != nil {
			return err
		}
		if !w.client.holds(l) {
			err = w.client.take(ctx, l)
		}
		w.pages = nil // what is read from now on is newer than anything that another writer does
		return err
	}
	slices.SortFunc(edits, func(a, b edit) int { return cmp.Or(cmp.Compare(a.id.tab, b.id.tab), cmp.Compare(a.row, b.row)) })
	if grew, err := w.makeRoom(ctx, jobs, edits); grew || err != nil {
		return err
	}
	if err := w.write(ctx, edits); err != nil {
		if outcome.Of(err).Kind != outcome.KindPermanent {
			w.pages = nil
			return err
		}
		// A person has changed something. When all is known again, it is found out which.
		if !w.suspect {
			w.pages = nil
			return nil
		}
		w.suspect = false
		if err := w.isolate(ctx, edits, err); err != nil {
			w.pages = nil
			return err
		}
		return nil // the next look tells what has been written
	}
	w.suspect = false
	spare := w.client.spareRead()
	for _, e := range edits {
		p := w.pages[e.id.tab]
		if e.at[0] == p.layout.at[0] {
			key, _ := e.values[0].(string)
			p.put(key, e.row)
		} else if !spare {
			p.unseen = append(p.unseen, e)
		}
	}
	for j := range wrote {
		j.wrote++
		if j.cells != nil && !spare {
			j.done = true // the next write, or audit, looks first
		}
	}
	return nil
}

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
		e = p.emptyEdit(l)
		for _, c := range e.at {
			if p.sheet.isLocked(l.row, c) {
				w.hitLocked(p, p.sheet.locked[slices.IndexFunc(p.sheet.locked, func(b block) bool { return b.has(l.row, c) })])
				j.done, j.aside = true, true
				return e, false
			}
		}
		return e, true
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
		if locked := slices.IndexFunc(p.sheet.locked, func(b block) bool { return b.has(l.row, c) }); locked >= 0 {
			if !right {
				w.hitLocked(p, p.sheet.locked[locked])
			}
			j.aside = j.aside || !right
			continue
		}
		if p.sheet.covered(l.row, c) {
			if j.shows[i] != "" {
				w.hitMerged(p, p.sheet.merges[slices.IndexFunc(p.sheet.merges, func(b block) bool { return b.has(l.row, c) })])
				j.aside = true
			}
			continue
		}
		if words, shut := w.barred[place{p.tab, i}]; shut {
			if !right {
				w.hitColumn(p, i, words)
			}
			j.aside = j.aside || !right
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

// makeRoom lets tabs grow so far that new rows fit, and says whether one did. Where
// Google has no room the new rows are set aside.
func (w *Writer) makeRoom(ctx context.Context, jobs []*job, edits []edit) (grew bool, err error) {
	for t, p := range w.pages {
		rows := 0
		for _, e := range edits {
			if e.id.tab == t {
				rows = max(rows, e.row+1)
			}
		}
		if p == nil || rows <= p.sheet.rows {
			continue
		}
		said := w.closed[t]
		if said == "" && p.sheet.whole() {
			said = protectedWords
		}
		if said == "" {
			more := grow(p.sheet, rows, 0, w.cells)
			switch err := w.client.change(ctx, more...); {
			case err == nil:
				n := int(more[0].AppendDimension.Length)
				p.sheet.rows += n
				w.cells += n * p.sheet.cols
				w.hitSize(w.cells)
				grew = true
				continue
			case outcome.Of(err).Kind != outcome.KindPermanent:
				return false, err
			case !w.suspect:
				w.pages = nil
				return true, nil
			default:
				said = words(err)
				w.closed[t] = said
			}
		}
		w.hitTab(t, said)
		for _, j := range jobs {
			if _, there := p.at[j.id.key]; j.id.tab == t && !there {
				j.done, j.aside, grew = true, true, true
			}
		}
	}
	return grew, nil
}

// write writes edits that were computed from a reading, in as few calls as fit, and
// counts them.
func (w *Writer) write(ctx context.Context, edits []edit) error {
	for len(edits) > 0 {
		n, size := 0, 0
		for n < len(edits) && n < maxRows && (n == 0 || size < maxBytes) {
			for _, v := range edits[n].values {
				size += len(text(v)) + 4
			}
			n++
		}
		if err := w.client.put(ctx, ranges(w.pages, edits[:n])); err != nil {
			return err
		}
		for _, e := range edits[:n] {
			if len(e.at) > 2 {
				w.rows.WithLabelValues(tabs[e.id.tab].title).Inc()
			}
		}
		edits = edits[n:]
	}
	return nil
}

// maxProbes bounds the writes by which it is found out what Google turns down. What is
// not found by then is looked for by the next try.
const maxProbes = 60

// isolate finds out, by halving, which of some edits Google turns down: in a row the
// cells, or, when they are of the same column in a second row too, the column. All
// others are written.
func (w *Writer) isolate(ctx context.Context, edits []edit, refusal error) error {
	probes := 0
	suspects := map[place]edit{} // a cell of the column was turned down
	var try func(part []edit, known error) error
	strip := func(part []edit) (out []edit) {
		for _, e := range part {
			p := w.pages[e.id.tab]
			s := edit{id: e.id, row: e.row}
			for i, c := range e.at {
				k := slices.Index(p.layout.at, c)
				if _, shut := w.barred[place{e.id.tab, k}]; shut && k > 0 {
					continue
				}
				if _, shut := w.refused[cell{e.id, k}]; shut {
					continue
				}
				s.at, s.values = append(s.at, c), append(s.values, e.values[i])
			}
			if len(s.at) > 0 {
				out = append(out, s)
			}
		}
		return out
	}
	try = func(part []edit, known error) error {
		if part = strip(part); len(part) == 0 {
			return nil
		}
		if known == nil {
			if probes++; probes > maxProbes {
				return outcome.Retry(outcome.Refused, time.Second, fmt.Errorf("finding out what Google turns down takes longer"))
			}
			if known = w.write(ctx, part); known == nil || outcome.Of(known).Kind != outcome.KindPermanent {
				return known
			}
		}
		if len(part) > 1 {
			half := len(part) / 2
			if err := try(part[:half], nil); err != nil {
				return err
			}
			return try(part[half:], nil)
		}
		e := part[0]
		if n := len(e.at); n > 1 {
			half := n / 2
			if err := try([]edit{{e.id, e.row, e.at[:half], e.values[:half]}}, nil); err != nil {
				return err
			}
			return try([]edit{{e.id, e.row, e.at[half:], e.values[half:]}}, nil)
		}
		k := slices.Index(w.pages[e.id.tab].layout.at, e.at[0])
		col := place{e.id.tab, k}
		if other, again := suspects[col]; again && other.id != e.id && k > 0 {
			w.barred[col] = words(known)
			delete(w.refused, cell{other.id, k})
			return nil
		}
		suspects[col] = e
		if k == 0 {
			w.refused[cell{e.id, 0}] = turnedDown{"", words(known)}
			return nil
		}
		w.refused[cell{e.id, k}] = turnedDown{text(e.values[0]), words(known)}
		return nil
	}
	return try(edits, refusal)
}
