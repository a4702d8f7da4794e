package sheets

import (
	"cmp"
	"context"
	"slices"

	"leadpipe/internal/outcome"
)

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
	w.confirm(seen, same)
	if !same {
		for _, j := range jobs {
			w.due = w.due || j.wrote > 0
		}
	}
	if !same || w.claim(jobs, seen) {
		w.pages = nil
		return nil
	}
	next, ok := w.plan(jobs, seen)
	if !ok {
		w.pages = nil
		return nil
	}
	if len(next.edits) == 0 {
		return nil
	}
	if err := w.carryOut(ctx, jobs, next.edits, next.wrote); err != nil {
		return err
	}
	for t, columns := range next.former {
		if len(columns) > 0 && w.pages != nil && w.pages[t] != nil {
			w.dress(ctx, w.pages[t], columns)
		}
	}
	return nil
}

// confirm takes a look that shows columns and keys where they were as the one that rows
// written before were waiting for.
func (w *Writer) confirm(seen [numTabs]*glance, same bool) {
	if !same {
		return
	}
	for t, g := range seen {
		if g == nil {
			continue
		}
		p := w.pages[t]
		if !w.shown(p, g) {
			w.due = true // it landed in other rows
		}
		p.unseen = nil
	}
}

// A plan is what is written after a look.
type plan struct {
	edits  []edit
	wrote  map[*job]bool  // whose cells are among the edits
	former [numTabs][]int // columns with times as the first release wrote them
}

// plan says what is to be written next; not ok: a row was not looked at.
func (w *Writer) plan(jobs []*job, seen [numTabs]*glance) (next plan, ok bool) {
	next.wrote = map[*job]bool{}
	free := w.free(seen)
	for _, j := range jobs {
		p := w.pages[j.id.tab]
		row, there := p.at[j.id.key]
		if !there {
			if e, ok := w.newRow(p, j, &free[j.id.tab]); ok {
				next.edits = append(next.edits, e)
			}
			continue
		}
		l := seen[j.id.tab].lines[row]
		if l == nil {
			return next, false
		}
		e, ok := w.rewrite(p, j, l)
		if !ok {
			continue
		}
		next.edits = append(next.edits, e)
		next.wrote[j] = true
		next.former[j.id.tab] = datesAsText(next.former[j.id.tab], p, l)
	}
	return next, true
}

// free gives the first row of each tab below everything that anybody has written.
func (w *Writer) free(seen [numTabs]*glance) (free [numTabs]int) {
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
	return free
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
