package sheets

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// A job is a row to be made what it should be.
type job struct {
	id    rowID
	cells []any // as long as the tab has columns, the key first; nil: the record is gone

	shows   []string // what the row then shows
	done    bool     // it is in the sheet, or set aside
	aside   bool     // set aside: Google does not take all of it
	wrote   int      // how often its cells were written and not found so
	claimed bool     // whose row its key landed in has been looked into
}

// A batch is what some changes ask for.
type batch struct {
	jobs []*job
	rows map[string]*job  // by subject
	errs map[string]error // by subject: what can't be rendered
}

// batch renders the rows that changes ask for. A customer's row needs its
// subscriptions too, which are read from the bucket.
func (w *Writer) batch(ctx context.Context, newest map[string]contracts.Message) *batch {
	b := &batch{rows: map[string]*job{}, errs: map[string]error{}}
	byRow := map[rowID]*job{}
	add := func(id rowID, cells []any) *job {
		j := byRow[id]
		if j == nil {
			j = &job{id: id}
			byRow[id] = j
			b.jobs = append(b.jobs, j)
		}
		j.cells = cells
		return j
	}
	var customers []string
	var seeds []state.Seed
	bySubject := map[string][]string{} // customer → subjects that ask for it
	ask := func(customer, subject string) {
		if bySubject[customer] == nil {
			customers = append(customers, customer)
		}
		bySubject[customer] = append(bySubject[customer], subject)
	}
	changes := make([]contracts.Message, 0, len(newest))
	for _, m := range newest {
		changes = append(changes, m)
	}
	slices.SortFunc(changes, func(a, b contracts.Message) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for _, m := range changes {
		key := contracts.KeyOfSubject(m.Subject)
		id, ok := rowOf(key)
		switch isSub := strings.HasPrefix(key, "subscription."); {
		case !ok && !isSub:
		case deleted(m) && isSub:
			w.due = true // whose it was, only the whole bucket tells
		case deleted(m):
			b.rows[m.Subject] = add(id, nil)
		case isSub:
			var s contracts.Subscription
			if err := json.Unmarshal(m.Data, &s); err != nil {
				b.errs[m.Subject] = outcome.Permanentf(outcome.Malformed, "reading a subscription: %w", err)
				continue
			}
			seeds = append(seeds, state.Seed{Key: key, Revision: m.Sequence, Data: m.Data})
			if contracts.ValidID(s.CustomerID) {
				ask(s.CustomerID, m.Subject)
			}
		case id.tab == clientsTab:
			seeds = append(seeds, state.Seed{Key: key, Revision: m.Sequence, Data: m.Data})
			ask(id.key, m.Subject)
		default:
			cells, err := render(id, m)
			if err != nil {
				b.errs[m.Subject] = err
				continue
			}
			b.rows[m.Subject] = add(id, cells)
		}
	}
	rendered, none := make([][]any, len(customers)), make([]bool, len(customers))
	errs := w.store.Fold(ctx, len(customers), func(tx *state.Tx, i int) error {
		rendered[i], none[i] = nil, false
		c, ok, err := state.Get[contracts.Customer](tx, contracts.KeyCustomer(customers[i]))
		if err != nil || !ok {
			return err
		}
		keys := make([]string, len(c.Subscriptions))
		for j, id := range c.Subscriptions {
			keys[j] = contracts.KeySubscription(id)
		}
		if err := tx.Need(keys...); err != nil {
			return err
		}
		var subs []contracts.Subscription
		for _, key := range keys {
			s, ok, err := state.Get[contracts.Subscription](tx, key)
			if err != nil {
				return err
			}
			if ok {
				subs = append(subs, s)
			}
		}
		if c.Since.IsZero() {
			none[i] = true // no client; one that only seemed to be one may have a row
			return nil
		}
		rendered[i] = renderClient(customers[i], c, subs)
		return nil
	}, nil, seeds...)
	for i, customer := range customers {
		for _, subject := range bySubject[customer] {
			switch {
			case errs[i] != nil:
				b.errs[subject] = errs[i]
			case rendered[i] != nil, none[i]:
				b.rows[subject] = add(rowID{clientsTab, customer}, rendered[i])
			}
		}
	}
	return b
}

// known is the bucket's keys of one tab.
type known struct {
	live  map[string]bool // false: deleted
	order []string        // in the stream's order, the deleted ones included
}

// keys lists what rows there should be.
func (w *Writer) keys(ctx context.Context) (*[numTabs]known, error) {
	var out [numTabs]known
	for t := range out {
		out[t].live = map[string]bool{}
	}
	newest := uint64(0)
	err := w.opt.Keys(ctx, kinds(), func(key string, revision uint64, deleted bool) error {
		newest = max(newest, revision)
		if id, ok := rowOf(key); ok {
			if _, again := out[id.tab].live[id.key]; !again {
				out[id.tab].order = append(out[id.tab].order, id.key)
			}
			out[id.tab].live[id.key] = !deleted
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the bucket: %w", err)
	}
	// A subscription's revision may be newer than all of these.
	if newest < w.newest && w.newestRow() > newest {
		return nil, outcome.Temporary(outcome.Conflict, fmt.Errorf("reading the bucket: got up to revision %d, %d was there already", newest, w.newest))
	}
	return &out, nil
}

// newestRow is the newest revision handled of a record that has a row of its own.
func (w *Writer) newestRow() uint64 {
	newest := uint64(0)
	for subject, revision := range w.handled {
		if _, ok := rowOf(contracts.KeyOfSubject(subject)); ok {
			newest = max(newest, revision)
		}
	}
	return newest
}

// read renders the rows of some keys of a tab as the bucket has them. A row that is to
// be emptied is there and nil; one whose record can't be read, or is older than what was
// handled already, is left out.
func (w *Writer) read(ctx context.Context, t int, keys []string) (map[string][]any, error) {
	records := make([]string, len(keys))
	for i, k := range keys {
		records[i] = keyOf(rowID{t, k})
	}
	msgs, err := w.opt.Read(ctx, records)
	if err != nil {
		return nil, fmt.Errorf("reading the bucket: %w", err)
	}
	out := make(map[string][]any, len(msgs))
	customers := map[string]contracts.Customer{}
	var subs []string
	for _, m := range msgs {
		id, ok := rowOf(contracts.KeyOfSubject(m.Subject))
		switch {
		case !ok, m.Sequence < w.handled[m.Subject]:
		case deleted(m):
			out[id.key] = nil
		case t == clientsTab:
			var c contracts.Customer
			if json.Unmarshal(m.Data, &c) != nil {
				continue
			}
			if out[id.key] = nil; c.Since.IsZero() {
				continue
			}
			customers[id.key] = c
			for _, s := range c.Subscriptions {
				subs = append(subs, contracts.KeySubscription(s))
			}
		default:
			if cells, err := render(id, m); err == nil {
				out[id.key] = cells
			}
		}
	}
	if len(customers) == 0 {
		return out, nil
	}
	if msgs, err = w.opt.Read(ctx, subs); err != nil {
		return nil, fmt.Errorf("reading the bucket: %w", err)
	}
	bySub := map[string]contracts.Subscription{}
	for _, m := range msgs {
		var s contracts.Subscription
		if !deleted(m) && json.Unmarshal(m.Data, &s) == nil {
			bySub[strings.TrimPrefix(contracts.KeyOfSubject(m.Subject), "subscription.")] = s
		}
	}
	for key, c := range customers {
		var of []contracts.Subscription
		for _, id := range c.Subscriptions {
			if s, ok := bySub[id]; ok {
				of = append(of, s)
			}
		}
		out[key] = renderClient(key, c, of)
	}
	return out, nil
}

// shows is what the cells of a row read like when they are in the sheet.
func (w *Writer) shows(t int, cells []any) []string {
	out := make([]string, len(cells))
	for i, c := range inZone(cells, w.zone) {
		out[i] = tabs[t].columns[i].kind.shown(text(c))
	}
	return out
}
