package sheets

import (
	"context"
	"fmt"
	"slices"
	"time"

	"leadpipe/internal/outcome"
)

// maxBytes and maxRows bound one write. Google recommends at most 2 MB.
const maxBytes, maxRows = 1_800_000, 5_000

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
