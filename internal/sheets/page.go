package sheets

import (
	"context"
	"fmt"

	"leadpipe/internal/outcome"
)

// A page is what is known of a tab between two calls: where its columns are, and which
// key is in which row. All of it is looked at again before a row is written, for that row.
type page struct {
	tab    int
	sheet  sheet
	layout layout
	at     map[string]int // key → row
	keys   []string       // row → key
	used   int            // the first row below everything
	unseen []edit         // cells written by their place and not looked at since
}

// put notes that a key is in a row now.
func (p *page) put(key string, row int) {
	for len(p.keys) <= row {
		p.keys = append(p.keys, "")
	}
	if old := p.keys[row]; old != "" && p.at[old] == row {
		delete(p.at, old)
	}
	if p.keys[row] = key; key != "" {
		p.at[key] = row
	}
	p.used = max(p.used, row+1)
}

// sync finds out where everything is, and mends what a write in the wrong moment, or a
// person, did to keys.
func (w *Writer) sync(ctx context.Context) error {
	keys, err := w.keys(ctx)
	if err != nil {
		return err
	}
	for range maxRounds {
		w.pages = nil
		l, err := w.client.list(ctx)
		if err != nil {
			return err
		}
		w.enter(l)
		pages, ok, err := w.form(ctx, l)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		edits, err := w.index(ctx, pages, keys)
		switch {
		case err != nil:
			return asMoved(err)
		case len(edits) == 0:
			w.pages, w.suspect = pages, true
			w.syncs++
			return nil
		case !w.client.holds(l):
			if err := w.client.take(ctx, l); err != nil {
				return err
			}
			continue
		}
		if err := w.client.put(ctx, ranges(pages, edits)); err != nil {
			if outcome.Of(err).Kind != outcome.KindPermanent {
				return err
			}
			return outcome.Temporary(outcome.Conflict, fmt.Errorf("mending keys: %w", err))
		}
	}
	return moving()
}
