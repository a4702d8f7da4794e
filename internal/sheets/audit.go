package sheets

import (
	"context"
	"slices"
	"time"

	"leadpipe/internal/outcome"
)

const (
	// newRows is how many rows an audit adds at a time.
	newRows = 4_000
	// maxRestarts is how often an audit begins again because people moved rows. What
	// they move after that is the next audit's.
	maxRestarts = 5
)

// An audit is how far one has come.
type audit struct {
	keys     *[numTabs]known
	begun    bool
	writing  bool // rows, when the last slice ended
	tab, row int  // the next slice
	restarts int
	ends     [numTabs]int // the rows that there were: those that are added meanwhile are right, and an audit has an end
	syncs    int          // as many as the writer had made: with each, rows may have moved
	repaired int
}

// Audit compares the whole spreadsheet with the bucket, makes tabs and headers that
// are missing, and repairs what differs, slice by slice: a Handle that comes meanwhile
// waits for one slice at most. It tries again what was set aside, and closes the
// incidents of what has been mended. repaired counts the rows that it wrote. The error is
// as Handle's. It is due when a writer starts and every few minutes, on the one writer
// only: where it finds something to write it takes over from others.
func (w *Writer) Audit(ctx context.Context) (repaired int, err error) {
	a := &audit{}
	for {
		done, err := w.slice(ctx, a)
		if done || err != nil {
			w.repairs.Add(float64(a.repaired))
			return a.repaired, err
		}
		// A slice is one look, and where rows are being written up to two writes: for room and
		// for keys, or for cells.
		writes := 0
		if a.writing {
			writes = 2
		}
		if err := w.client.setAside(ctx, 1, writes); err != nil {
			return a.repaired, err
		}
	}
}

func (w *Writer) slice(ctx context.Context, a *audit) (done bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.client.spends = true
	began := time.Now()
	defer func() {
		w.client.spends, a.writing = false, w.repair != nil
		w.slices.Observe(time.Since(began).Seconds())
	}()
	err = w.persist(ctx, func(ctx context.Context) error {
		done, err = w.next(ctx, a)
		return err
	})
	return done, err
}

// auditSmall is an audit of a spreadsheet that is no more than a slice, at once.
func (w *Writer) auditSmall(ctx context.Context) (repaired int, err error) {
	a := &audit{}
	for done := false; !done && err == nil; {
		err = w.persist(ctx, func(ctx context.Context) error {
			done, err = w.next(ctx, a)
			return err
		})
	}
	return a.repaired, err
}

// next does the next part of an audit.
func (w *Writer) next(ctx context.Context, a *audit) (done bool, err error) {
	if !a.begun {
		return false, w.begin(ctx, a)
	}
	if w.repair != nil {
		return false, w.goOn(ctx, a)
	}
	if w.pages == nil || a.syncs != w.syncs {
		return false, w.restart(ctx, a)
	}
	jobs, err := w.missing(ctx, a)
	if err != nil {
		return false, err
	}
	if len(jobs) > 0 {
		w.repair = &task{jobs: jobs}
		return false, w.goOn(ctx, a)
	}
	for a.tab < numTabs {
		p := w.pages[a.tab]
		if p != nil && max(a.row, p.layout.head+1) < a.ends[a.tab] || p != nil && a.row < p.layout.head {
			break
		}
		a.tab, a.row = a.tab+1, 0
	}
	if a.tab < numTabs {
		return false, w.compare(ctx, a)
	}
	w.due = false
	return true, w.sweep(ctx)
}

// begin looks whether everything is where it was, and tries again all that was set
// aside.
func (w *Writer) begin(ctx context.Context, a *audit) error {
	w.round++
	w.repair = nil // of an audit that did not come to its end
	clear(w.refused)
	clear(w.barred)
	clear(w.closed)
	keys, err := w.keys(ctx)
	if err != nil {
		return err
	}
	if w.pages != nil {
		l, err := w.client.list(ctx)
		if err != nil {
			return err
		}
		w.enter(l)
		pages, ok, err := w.form(ctx, l)
		if err != nil {
			return err
		}
		for t, p := range w.pages {
			if !ok || p == nil || pages[t] == nil || pages[t].sheet.id != p.sheet.id || !slices.Equal(p.layout.at, pages[t].layout.at) || p.layout.head != pages[t].layout.head {
				w.pages = nil
				break
			}
			p.sheet = pages[t].sheet
		}
	}
	if w.pages == nil {
		if err := w.sync(ctx); err != nil {
			return err
		}
	}
	*a = audit{keys: keys, begun: true, ends: w.ends(), syncs: w.syncs, repaired: a.repaired, restarts: a.restarts}
	return nil
}

// ends are the tabs' first free rows.
func (w *Writer) ends() (ends [numTabs]int) {
	for t, p := range w.pages {
		if p != nil {
			ends[t] = p.used
		}
	}
	return ends
}

// restart goes on after rows have moved: from the beginning, as long as that has an end.
func (w *Writer) restart(ctx context.Context, a *audit) error {
	if w.pages == nil {
		if err := w.sync(ctx); err != nil {
			return err
		}
	}
	a.syncs = w.syncs
	if a.restarts++; a.restarts > maxRestarts {
		return nil
	}
	keys, err := w.keys(ctx)
	if err != nil {
		return err
	}
	a.keys, a.tab, a.row, a.ends = keys, 0, 0, w.ends()
	return nil
}

// missing picks rows that are not there and should be, and those that are and should not.
func (w *Writer) missing(ctx context.Context, a *audit) ([]*job, error) {
	for t := range a.keys {
		p, all := w.pages[t], &a.keys[t]
		if p == nil {
			continue
		}
		for len(all.order) > 0 {
			n := min(len(all.order), sliceRows)
			var keys []string
			used := 0
			for _, key := range all.order[:n] {
				if len(keys) == newRows {
					break
				}
				used++
				if _, there := p.at[key]; there != all.live[key] {
					keys = append(keys, key)
				}
			}
			all.order = all.order[used:]
			if len(keys) == 0 {
				continue
			}
			rows, err := w.read(ctx, t, keys)
			if err != nil {
				return nil, err
			}
			var jobs []*job
			for _, key := range keys {
				if cells, ok := rows[key]; ok && (cells != nil) == all.live[key] {
					jobs = append(jobs, &job{id: rowID{t, key}, cells: cells})
				}
			}
			if len(jobs) > 0 {
				return jobs, nil
			}
		}
	}
	return nil, nil
}

// compare compares a slice of rows with the bucket.
func (w *Writer) compare(ctx context.Context, a *audit) error {
	p := w.pages[a.tab]
	if p.layout.head == 0 {
		a.row = max(a.row, 1)
	}
	b := block{a.row, 0, min(a.row+sliceRows, a.ends[a.tab], p.sheet.rows), p.sheet.cols}
	grids, err := w.client.get(ctx, []string{p.sheet.area(b)})
	if err != nil {
		w.pages = nil
		return asMoved(err)
	}
	for len(grids[0]) < b.endRow-b.row {
		grids[0] = append(grids[0], nil)
	}
	var keys []string
	lines := p.lines(grids[0], b.row)
	for _, l := range lines {
		if l.row < len(p.keys) && p.keys[l.row] != l.key && !p.sheet.covered(l.row, p.layout.at[0]) {
			w.pages = nil // rows have moved
			return nil
		}
		if r, there := p.at[l.key]; there && r == l.row {
			keys = append(keys, l.key)
		}
	}
	rows, err := w.read(ctx, a.tab, keys)
	if err != nil {
		return err
	}
	var jobs []*job
	for _, l := range lines {
		cells, ours := rows[l.key]
		if r, there := p.at[l.key]; !ours || !there || r != l.row {
			continue
		}
		j := &job{id: rowID{a.tab, l.key}, cells: cells}
		if _, differs := w.rewrite(p, j, l); differs {
			jobs = append(jobs, &job{id: j.id, cells: cells})
		}
	}
	a.row = b.endRow
	if len(jobs) > 0 {
		w.repair = &task{jobs: jobs}
	}
	return nil
}

// goOn writes rows that an audit found wrong, as far as one look goes. Where that does not
// end it is not the audit's end: the next one finds them again.
func (w *Writer) goOn(ctx context.Context, a *audit) error {
	t := w.repair
	left, err := w.advance(ctx, t)
	if err == nil && left > 0 {
		return nil
	}
	w.repair = nil
	for _, j := range t.jobs {
		if j.done && !j.aside {
			a.repaired++
		}
	}
	if err != nil && outcome.Of(err).Reason == outcome.Conflict && a.restarts < maxRestarts {
		a.restarts++
		w.pages = nil
		return nil
	}
	return err
}

// overtaken drops rows from what an audit is writing: what a change says of them is newer.
func (w *Writer) overtaken(jobs []*job) {
	if w.repair == nil {
		return
	}
	newer := make(map[rowID]bool, len(jobs))
	for _, j := range jobs {
		newer[j.id] = true
	}
	w.repair.jobs = slices.DeleteFunc(w.repair.jobs, func(j *job) bool { return newer[j.id] })
}
