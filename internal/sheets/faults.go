package sheets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"leadpipe/contracts"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// What Google does not let us write is set aside by its place: a cell, a column, a
// protected or merged range, a tab. All the rest goes on. One incident a place says what
// Google said; every audit tries again, and closes the incidents of places that it no
// longer met.

// A fault is a place that can't be written.
type fault struct {
	id       string // the incident's
	severity contracts.Severity
	text     string
	raised   bool
	round    int // the audit that met it last
}

// protectedWords are what Google answers to a write into protected cells, for where
// the listing told of the protection first.
const protectedWords = "You are trying to edit a protected cell or object. Please contact the spreadsheet owner to remove protection if you need to edit."

// faultPrefix begins the ids of the incidents of this file.
const faultPrefix = "sheets-place-"

// hit notes that a place was met.
func (w *Writer) hit(t int, place string, severity contracts.Severity, format string, args ...any) {
	sum := sha256.Sum256([]byte(place))
	id := fmt.Sprintf("%s%s-%s", faultPrefix, strings.ToLower(tabs[t].title), hex.EncodeToString(sum[:5]))
	f := w.faults[id]
	if f == nil {
		f = &fault{id: id, severity: severity}
		w.faults[id] = f
	}
	if !f.raised {
		f.text = fmt.Sprintf(format, args...)
	}
	f.round = w.round
}

// hitRange notes a protected or merged range of a tab.
func (w *Writer) hitLocked(p *page, b block) {
	w.hit(p.tab, "protected "+p.sheet.area(b), contracts.SeverityError,
		"the spreadsheet has %s protected against the service account, so nothing is written there: %q Everything else goes on; remove the protection, or let the account edit it",
		p.sheet.area(b), protectedWords)
}

func (w *Writer) hitMerged(p *page, b block) {
	w.hit(p.tab, "merged "+p.sheet.area(b), contracts.SeverityWarning,
		"the spreadsheet has %s merged to one cell, so that what belongs into its other cells can't be shown; everything else goes on; unmerge it", p.sheet.area(b))
}

// hitRow notes a row of which Google refuses some cells.
func (w *Writer) hitRow(p *page, key string, row int, columns []int, said string) {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = tabs[p.tab].columns[c].name
	}
	place := "row " + key
	if p.tab == incidentsTab && strings.HasPrefix(key, faultPrefix) {
		place = "rows of this kind" // one incident for all of them, or it would never end
	}
	w.hit(p.tab, place, contracts.SeverityWarning, "Google does not take row %d of tab %s, column %s: %q Everything else goes on",
		row+1, p.sheet.title, strings.Join(names, ", "), said)
}

func (w *Writer) hitColumn(p *page, c int, said string) {
	w.hit(p.tab, "column "+tabs[p.tab].columns[c].name, contracts.SeverityError, "Google does not take column %s of tab %s: %q Everything else goes on",
		tabs[p.tab].columns[c].name, p.sheet.title, said)
}

func (w *Writer) hitTab(t int, said string) {
	w.hit(t, "tab", contracts.SeverityError, "Google does not let us change tab %s, which waits while everything else goes on: %q", tabs[t].title, said)
}

// fullAt is how many cells a spreadsheet may have, and nearlyFull from when on people
// are told. https://support.google.com/drive/answer/37603
const (
	fullAt     = 10_000_000
	nearlyFull = 9_000_000
)

func (w *Writer) hitSize(cells int) {
	if cells < nearlyFull {
		return
	}
	w.hit(leadsTab, "size", contracts.SeverityWarning,
		"the spreadsheet has %.1f of the 10 million cells that Google allows, empty ones included: when they are used up no new rows can be added, and changes to rows that exist go on; delete empty rows, empty columns and old tabs", float64(cells)/1e6)
}

// Faulty says whether any place is set aside.
func (w *Writer) Faulty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.faults) > 0
}

// Due says whether an audit should look soon: something moved in the moment of a write.
func (w *Writer) Due() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.due
}

// report opens the incidents of places that were met for the first time. One that is
// open already, from before a restart, stays as it is.
func (w *Writer) report(ctx context.Context) error {
	for _, f := range w.faults {
		if f.raised {
			continue
		}
		at := w.client.now().UTC()
		if err := w.store.Update(ctx, func(tx *state.Tx) error {
			index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
			if err != nil || slices.ContainsFunc(index.Open, func(x contracts.OpenIncident) bool { return x.ID == f.id }) {
				return err
			}
			return incident.Raise(tx, incident.Report{ID: f.id, Consumer: contracts.Sheets, Reason: outcome.Refused, Severity: f.severity, At: at, Text: f.text})
		}); err != nil {
			return fmt.Errorf("opening an incident: %w", err)
		}
		f.raised = true
	}
	return nil
}

// sweep closes the incidents of places that the audit which ends now did not meet.
func (w *Writer) sweep(ctx context.Context) error {
	var mended []string
	for id, f := range w.faults {
		if f.round < w.round {
			mended = append(mended, id)
		}
	}
	at := w.client.now().UTC()
	if err := w.store.Update(ctx, func(tx *state.Tx) error {
		index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
		if err != nil {
			return err
		}
		for _, x := range slices.Clone(index.Open) {
			// One of before a restart is nobody's now.
			if strings.HasPrefix(x.ID, faultPrefix) && w.faults[x.ID] == nil {
				if err := incident.Resolve(tx, x.ID, at); err != nil {
					return err
				}
			}
		}
		for _, id := range mended {
			if err := incident.Resolve(tx, id, at); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("closing incidents: %w", err)
	}
	for _, id := range mended {
		delete(w.faults, id)
	}
	return w.report(ctx)
}
