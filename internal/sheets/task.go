package sheets

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"leadpipe/internal/outcome"
)

const (
	// maxRuns is how many ranges of one tab are read apart; a URL holds no more.
	maxRuns = 40
	// sliceRows is how many rows are read at a time.
	sliceRows = 4_000
	// runGap is how many rows apart two rows may be to be read in one range.
	runGap = 20
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
