package sheets

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	api "google.golang.org/api/sheets/v4"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

const (
	// patience is how long one call of Handle or Audit tries again by itself. It stays
	// below the durable's ack_wait, so that nothing is redelivered meanwhile.
	patience = 20 * time.Second
	// maxBackoff is the longest pause between two tries, before jitter.
	maxBackoff = 8 * time.Second
	// maxRounds bounds the rounds of one audit. Five are enough when nobody edits
	// meanwhile: take the fence, restore keys, write cells, add keys, write their cells.
	maxRounds = 12
	// maxBytes and maxRows bound one write. Google recommends at most 2 MB.
	maxBytes, maxRows = 1_800_000, 5_000
	// quickRows is up to how many changed rows are written by their place alone; more
	// are compared with the whole sheet, which then costs less than writing them all.
	quickRows = 500
	// spareRows is how many rows a sheet grows by at least.
	spareRows = 1000
)

// Options is what a Writer needs.
type Options struct {
	SpreadsheetID   string
	CredentialsFile string // of a service account that may edit the spreadsheet
	URL             string // in place of Google's; empty: Google
	Reads, Writes   int    // calls a minute; 0: 60, Google's quota for one account

	Store *state.Store
	// Scan yields the newest message of every key of the bucket that the durable
	// follows, the markers of deleted keys included, in the stream's order. It returns
	// yield's error.
	Scan func(ctx context.Context, yield func(contracts.Message) error) error

	Registerer prometheus.Registerer // may be nil
}

// A Writer keeps the spreadsheet equal to the bucket. It is safe for concurrent use;
// one call works at a time.
type Writer struct {
	client *client
	store  *state.Store
	scan   func(context.Context, func(contracts.Message) error) error
	jitter func(time.Duration) time.Duration

	mu      sync.Mutex
	views   *[numTabs]view   // how the sheet looked when it was right; nil: not known
	newest  uint64           // the last revision handled: what a scan has to include
	refused map[rowID]string // what Google would not take

	rows    *prometheus.CounterVec
	repairs prometheus.Counter
	lag     prometheus.Gauge
}

// A view is what is remembered of a tab between two calls.
type view struct {
	layout layout
	sheet  sheet
	used   int             // the first row below everything
	keys   map[string]bool // those in column A
	unseen []edit          // cells written by their place and not looked at since
}

// New makes a Writer. It reads the credentials' file and calls nobody. An unusable
// file is an error.
func New(ctx context.Context, opt Options) (*Writer, error) {
	switch {
	case opt.SpreadsheetID == "":
		return nil, errors.New("sheets: no spreadsheet id")
	case opt.CredentialsFile == "":
		return nil, errors.New("sheets: no credentials file")
	case opt.Store == nil, opt.Scan == nil:
		return nil, errors.New("sheets: no bucket to read from")
	case opt.Reads < 0, opt.Writes < 0:
		return nil, errors.New("sheets: a negative quota")
	}
	svc, err := service(ctx, opt)
	if err != nil {
		return nil, err
	}
	return newWriter(newClient(svc, opt), opt), nil
}

func newWriter(c *client, opt Options) *Writer {
	w := &Writer{
		client: c, store: opt.Store, scan: opt.Scan,
		jitter:  func(d time.Duration) time.Duration { return rand.N(d) },
		refused: map[rowID]string{},
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sheets_rows_written_total", Help: "Rows written to the spreadsheet, by tab."}, []string{"tab"}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sheets_repairs_total", Help: "Rows that an audit found different from the bucket."}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sheets_lag_seconds", Help: "Age of the oldest change of the last write when it was in the sheet."}),
	}
	if opt.Registerer != nil {
		opt.Registerer.MustRegister(c.calls, w.rows, w.repairs, w.lag)
	}
	return w
}

// Handle brings the rows of changed records up to date. msgs are changes of the
// bucket, in the stream's order; of several of one key the last one counts. It
// returns an error a message:
//
//   - nil: the row is in the sheet, or there is none to write;
//   - permanent: the record can't be read, or Google refuses this row;
//   - blocked: Google refuses the account or the spreadsheet;
//   - anything else: later. What was written stays, and is found again.
func (w *Writer) Handle(ctx context.Context, msgs []contracts.Message) []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	errs := make([]error, len(msgs))
	newest := map[string]contracts.Message{}
	for _, m := range msgs {
		w.newest = max(w.newest, m.Sequence)
		if old, ok := newest[m.Subject]; !ok || old.Sequence <= m.Sequence {
			newest[m.Subject] = m
		}
	}
	b := w.batch(ctx, newest)
	err := w.persist(ctx, func(ctx context.Context, began time.Time) error {
		// What was rendered longer ago may be outdated; an audit reads the bucket itself.
		if w.views != nil && w.client.mayWrite() && !b.whole && b.size() <= quickRows && w.client.now().Sub(began) < maxAge {
			if ok, err := w.quick(ctx, &b.wants, began); ok || err != nil {
				return err
			}
		}
		_, err := w.audit(ctx, true)
		return err
	})
	var oldest time.Time
	for i, m := range msgs {
		switch id, bad := b.rows[m.Subject], b.errs[m.Subject]; {
		case bad != nil:
			errs[i] = bad
		case err != nil:
			errs[i] = err
		case id.key != "" && w.isRefused(id, b.wants[id.tab].rows[id.key]):
			errs[i] = outcome.Permanentf(outcome.Refused, "the row in tab %s is refused by Google", tabs[id.tab].title)
		case oldest.IsZero() || m.Time.Before(oldest):
			oldest = m.Time
		}
	}
	if !oldest.IsZero() {
		w.lag.Set(w.client.now().Sub(oldest).Seconds())
	}
	return errs
}

// Audit compares the whole spreadsheet with the bucket, makes tabs and headers that
// are missing, and repairs what differs. repaired counts the rows that it wrote. The
// error is as Handle's. It is due when a writer starts and every few minutes, on the
// one writer only: where it finds something to write it takes over from others.
func (w *Writer) Audit(ctx context.Context) (repaired int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err = w.persist(ctx, func(ctx context.Context, _ time.Time) error {
		n, err := w.audit(ctx, false)
		repaired += n
		return err
	})
	w.repairs.Add(float64(repaired))
	return repaired, err
}

// persist tries until it is done, or until waiting longer is up to the caller. Every
// try starts with a fresh reading, so that an answer that was lost does no harm.
func (w *Writer) persist(ctx context.Context, try func(ctx context.Context, began time.Time) error) error {
	began := w.client.now()
	for attempt := 0; ; attempt++ {
		err := try(ctx, began)
		if err == nil || ctx.Err() != nil {
			return err
		}
		o := outcome.Of(err)
		if o.Kind != outcome.KindTemporary {
			return err
		}
		wait := max(o.After, w.jitter(min(maxBackoff, 500*time.Millisecond<<min(attempt, 10))))
		if w.client.now().Add(wait).Sub(began) > patience {
			return outcome.Retry(o.Reason, o.After, err)
		}
		if sleepErr := w.client.sleep(ctx, wait); sleepErr != nil {
			return err
		}
	}
}

// A batch is what some changes ask for.
type batch struct {
	wants [numTabs]*want
	rows  map[string]rowID // by subject
	errs  map[string]error // by subject: what can't be rendered
	whole bool             // something changed that only the whole bucket tells
}

func (b *batch) size() int {
	n := 0
	for _, w := range b.wants {
		n += len(w.order)
	}
	return n
}

// batch renders the rows that changes ask for. A customer's row needs its
// subscriptions too, which are read from the bucket.
func (w *Writer) batch(ctx context.Context, newest map[string]contracts.Message) *batch {
	b := &batch{rows: map[string]rowID{}, errs: map[string]error{}}
	for t := range b.wants {
		b.wants[t] = newWant()
	}
	var customers []string
	var seeds []state.Seed
	bySubject := map[string][]string{} // customer → subjects that ask for it
	ask := func(customer, subject string) {
		if bySubject[customer] == nil {
			customers = append(customers, customer)
		}
		bySubject[customer] = append(bySubject[customer], subject)
		b.rows[subject] = rowID{clientsTab, customer}
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
		case deleted(m):
			b.whole = true
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
			b.rows[m.Subject] = id
			b.wants[id.tab].add(id.key, cells)
		}
	}
	rendered, seemed := make([][]any, len(customers)), make([]bool, len(customers))
	errs := w.store.Fold(ctx, len(customers), func(tx *state.Tx, i int) error {
		rendered[i], seemed[i] = nil, false
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
			// No client. One that only seemed to be one has a row, which an audit takes away.
			seemed[i] = slices.ContainsFunc(subs, func(s contracts.Subscription) bool { return !s.RanAt.IsZero() })
			return nil
		}
		rendered[i] = renderClient(customers[i], c, subs)
		return nil
	}, nil, seeds...)
	for i, customer := range customers {
		if errs[i] != nil {
			for _, subject := range bySubject[customer] {
				b.errs[subject] = errs[i]
			}
		} else if rendered[i] != nil {
			b.wants[clientsTab].add(customer, rendered[i])
		} else if seemed[i] {
			b.whole = true
		}
	}
	return b
}

// bucket reads what all rows should be.
func (w *Writer) bucket(ctx context.Context) (*[numTabs]*want, error) {
	var wants [numTabs]*want
	for t := range wants {
		wants[t] = newWant()
	}
	customers := map[string]contracts.Customer{}
	var order []string
	subs := map[string]contracts.Subscription{}
	newest := uint64(0)
	// A key that changes during the scan is yielded again; the last one counts. A record
	// that can't be read has told so when its change was handled.
	err := w.scan(ctx, func(m contracts.Message) error {
		newest = max(newest, m.Sequence)
		key := contracts.KeyOfSubject(m.Subject)
		if subID, ok := strings.CutPrefix(key, "subscription."); ok {
			delete(subs, subID)
			var s contracts.Subscription
			if !deleted(m) && json.Unmarshal(m.Data, &s) == nil {
				subs[subID] = s
			}
			return ctx.Err()
		}
		id, ok := rowOf(key)
		switch {
		case !ok:
		case deleted(m):
			wants[id.tab].drop(id.key)
			delete(customers, id.key)
		case id.tab == clientsTab:
			var c contracts.Customer
			if json.Unmarshal(m.Data, &c) == nil {
				customers[id.key] = c
				order = append(order, id.key)
			}
		default:
			if cells, err := render(id, m); err == nil {
				wants[id.tab].add(id.key, cells)
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("reading the bucket: %w", err)
	}
	if newest < w.newest {
		return nil, outcome.Temporary(outcome.Conflict, fmt.Errorf("reading the bucket: got up to revision %d, %d was there already", newest, w.newest))
	}
	for _, key := range order {
		c, ok := customers[key]
		switch {
		case !ok:
			continue
		case c.Since.IsZero():
			wants[clientsTab].drop(key)
			continue
		}
		var of []contracts.Subscription
		for _, id := range c.Subscriptions {
			if s, ok := subs[id]; ok {
				of = append(of, s)
			}
		}
		wants[clientsTab].add(key, renderClient(key, c, of))
	}
	return &wants, nil
}

// audit makes the spreadsheet equal to the bucket, and says how many edits it took.
// writes says that there is surely something to write.
func (w *Writer) audit(ctx context.Context, writes bool) (repaired int, err error) {
	w.views = nil
	var wants *[numTabs]*want
	var scanned time.Time
	for range maxRounds {
		if wants == nil || w.client.now().Sub(scanned) > maxAge {
			scanned = w.client.now()
			if wants, err = w.bucket(ctx); err != nil {
				return repaired, err
			}
		}
		n, done, err := w.round(ctx, wants, writes)
		repaired += n
		if done || err != nil {
			return repaired, err
		}
	}
	return repaired, outcome.Temporary(outcome.Conflict, fmt.Errorf("the spreadsheet kept changing for %d rounds", maxRounds))
}

// round reads the spreadsheet, and writes what plan says; done when that is nothing.
//
// A writer that has to take the fence first does only that: what the next round reads
// is newer than anything that another writer could do.
func (w *Writer) round(ctx context.Context, wants *[numTabs]*want, writes bool) (written int, done bool, err error) {
	l, err := w.client.list(ctx)
	if err != nil {
		return 0, false, err
	}
	held, sheets := w.client.holds(l), l.sheets
	missing := missingTabs(sheets)
	switch {
	case !held && (writes || len(missing) > 0):
		return 0, false, w.client.take(ctx, l)
	case len(missing) > 0:
		return 0, false, asMoved(w.client.change(ctx, missing...)) // refused when somebody else was faster
	}
	if err := w.client.awaitWrite(ctx); err != nil {
		return 0, false, err
	}
	areas := make([]string, numTabs)
	for t := range tabs {
		s := sheets[tabs[t].title]
		areas[t] = area(t, 0, 0, s.rows-1, s.cols-1)
	}
	grids, err := w.client.get(ctx, areas)
	if err != nil {
		return 0, false, asMoved(err)
	}
	var views [numTabs]view
	var edits []edit
	var shape []*api.Request
	for t := range tabs {
		s := sheets[tabs[t].title]
		lay, fix, insert := locate(t, grids[t])
		if insert != "" {
			shape = append(shape, &api.Request{InsertDimension: &api.InsertDimensionRequest{
				Range: &api.DimensionRange{SheetId: s.id, Dimension: insert, EndIndex: 1, ForceSendFields: []string{"SheetId", "StartIndex"}},
			}})
			continue
		}
		planned := fix
		if len(fix) == 0 {
			planned = plan(t, lay, grids[t], wants[t], w.isRefused)
		}
		rows, cols := 0, slices.Max(lay.at)+1
		for _, e := range planned {
			rows = max(rows, e.row+1)
		}
		shape = append(shape, grow(s, rows, cols)...)
		edits = append(edits, planned...)
		views[t] = view{layout: lay, sheet: s, used: used(grids[t], lay), keys: make(map[string]bool, len(wants[t].rows))}
		for key := range wants[t].rows {
			views[t].keys[key] = true
		}
	}
	switch {
	case len(shape)+len(edits) == 0:
		w.views = &views
		return 0, true, nil
	case !held:
		return 0, false, w.client.take(ctx, l)
	case len(shape) > 0:
		return 0, false, asBlocked(w.client.change(ctx, shape...))
	}
	written, err = w.write(ctx, edits, true)
	return written, false, err
}

// missingTabs asks for the tabs that are missing.
func missingTabs(sheets map[string]sheet) (add []*api.Request) {
	for _, t := range tabs {
		if _, ok := sheets[t.title]; !ok {
			add = append(add, &api.Request{AddSheet: &api.AddSheetRequest{Properties: &api.SheetProperties{
				Title: t.title,
				// A frozen header stays on top when a person sorts.
				GridProperties: &api.GridProperties{RowCount: spareRows, ColumnCount: 26, FrozenRowCount: 1},
			}}})
		}
	}
	return add
}

// grow asks for rows and columns that a sheet does not have yet.
func grow(s sheet, rows, cols int) []*api.Request {
	var more []*api.Request
	add := func(dimension string, n int) {
		more = append(more, &api.Request{AppendDimension: &api.AppendDimensionRequest{
			SheetId: s.id, Dimension: dimension, Length: int64(n), ForceSendFields: []string{"SheetId"},
		}})
	}
	if rows > s.rows {
		add("ROWS", rows-s.rows+spareRows)
	}
	if cols > s.cols {
		add("COLUMNS", cols-s.cols)
	}
	return more
}

// asMoved makes a refusal temporary where the cause is that somebody changed tabs or
// grids meanwhile.
func asMoved(err error) error {
	if o := outcome.Of(err); err != nil && o.Kind == outcome.KindPermanent {
		return outcome.Temporary(outcome.Conflict, err)
	}
	return err
}

// asBlocked makes a refusal one of the whole spreadsheet: it is full, say.
func asBlocked(err error) error {
	if o := outcome.Of(err); err != nil && o.Kind == outcome.KindPermanent {
		return outcome.Blocked(o.Reason, err)
	}
	return err
}

func fingerprint(cells []any) string {
	var b strings.Builder
	for _, c := range cells {
		fmt.Fprintf(&b, "%q", text(c))
	}
	return b.String()
}

func (w *Writer) isRefused(id rowID, cells []any) bool {
	r, ok := w.refused[id]
	return ok && r == fingerprint(cells)
}

// write writes edits that were computed from a reading, in as few calls as fit, and
// counts them. Where Google refuses a call and isolate is set, the row at fault is
// found by halving and remembered, and the others are written.
func (w *Writer) write(ctx context.Context, edits []edit, isolate bool) (written int, err error) {
	refused := 0
	for len(edits) > 0 {
		n, size := 0, 0
		for n < len(edits) && n < maxRows && (n == 0 || size < maxBytes) {
			for _, v := range edits[n].values {
				size += len(text(v)) + 4
			}
			n++
		}
		ok, bad, err := w.writePart(ctx, edits[:n], isolate)
		written, refused = written+ok, refused+bad
		if err != nil {
			return written, err
		}
		edits = edits[n:]
	}
	if refused > 1 && written == 0 {
		w.refused = map[rowID]string{}
		return 0, outcome.Blocked(outcome.Refused, fmt.Errorf("each of %d rows is refused", refused))
	}
	return written, nil
}

func (w *Writer) writePart(ctx context.Context, edits []edit, isolate bool) (written, refused int, err error) {
	err = w.client.put(ctx, ranges(edits))
	switch o := outcome.Of(err); {
	case err == nil:
		for _, e := range edits {
			if e.id.key != "" {
				delete(w.refused, e.id)
				w.rows.WithLabelValues(tabs[e.id.tab].title).Inc()
			}
		}
		return len(edits), 0, nil
	case o.Kind != outcome.KindPermanent || !isolate:
		return 0, 0, err
	case len(edits) > 1:
		half := len(edits) / 2
		for _, part := range [][]edit{edits[:half], edits[half:]} {
			ok, bad, err := w.writePart(ctx, part, isolate)
			written, refused = written+ok, refused+bad
			if err != nil {
				return written, refused, err
			}
		}
		return written, refused, nil
	case edits[0].id.key == "" || len(edits[0].values) < len(tabs[edits[0].id.tab].columns)-1:
		return 0, 0, asBlocked(err) // a heading, or a key alone: not the row's fault
	default:
		e := edits[0]
		w.refused[e.id] = fingerprint(append([]any{e.id.key}, e.values...))
		return 0, 1, nil
	}
}

// quick writes a few changed rows: each where its key is, new ones below. It looks
// at the keys alone, so it gives up (false) at the first sign that the sheet is not as
// it was left, and an audit sees to everything.
func (w *Writer) quick(ctx context.Context, wants *[numTabs]*want, began time.Time) (ok bool, err error) {
	surprise := func(err error) (bool, error) {
		w.views = nil
		if err != nil && outcome.Of(err).Kind != outcome.KindPermanent {
			return false, err
		}
		return false, nil
	}
	if err := w.client.awaitWrite(ctx); err != nil {
		return false, err
	}
	var before []edit
	for t, want := range wants {
		if len(want.order) > 0 {
			before = append(before, w.views[t].unseen...)
		}
	}
	seen, same, err := w.look(ctx, wants, before)
	if err != nil || !same || !seen.show(before) || w.client.now().Sub(began) > maxAge {
		return surprise(err)
	}
	var edits, filled []edit
	var added [numTabs][]string
	for t, want := range wants {
		v := &w.views[t]
		next := max(v.used, seen[t].rows)
		for _, key := range want.order {
			cells := want.rows[key]
			row, found := seen[t].at[key]
			if !found {
				row = next
				next++
				added[t] = append(added[t], key)
				edits = append(edits, keyEdit(rowID{t, key}, v.layout, row, cells[0]))
			}
			e := edit{id: rowID{t, key}, row: row, at: v.layout.at[1:], values: cells[1:]}
			filled = append(filled, e)
			if found {
				edits = append(edits, e)
			}
		}
		if next > v.sheet.rows {
			return surprise(nil)
		}
	}
	byPlace := func(a, b edit) int { return cmp.Or(cmp.Compare(a.id.tab, b.id.tab), cmp.Compare(a.row, b.row)) }
	slices.SortFunc(edits, byPlace)
	slices.SortFunc(filled, byPlace)
	if _, err := w.write(ctx, edits, false); err != nil {
		return surprise(err)
	}
	for t, keys := range added {
		for _, key := range keys {
			w.views[t].keys[key] = true
		}
		w.views[t].used = max(w.views[t].used, seen[t].rows) + len(keys)
	}
	fresh := slices.DeleteFunc(slices.Clone(filled), func(e edit) bool { return !slices.Contains(added[e.id.tab], e.id.key) })
	if len(fresh) > 0 {
		if err := w.client.awaitWrite(ctx); err != nil {
			return false, err
		}
		seen, same, err := w.look(ctx, wants, fresh)
		if err != nil || !same {
			return surprise(err)
		}
		for _, e := range fresh {
			if seen[e.id.tab].at[e.id.key] != e.row || strings.Join(seen[e.id.tab].cells[e.row], "") != mark {
				return surprise(nil) // the key came to stand in somebody else's row
			}
		}
		if _, err := w.write(ctx, fresh, false); err != nil {
			return surprise(err)
		}
	}
	remember := func(rows []edit) {
		for t, want := range wants {
			if len(want.order) > 0 {
				w.views[t].unseen = slices.DeleteFunc(slices.Clone(rows), func(e edit) bool { return e.id.tab != t })
			}
		}
	}
	remember(filled)
	if !w.client.spareRead() {
		return true, nil // the next write, or audit, looks first
	}
	seen, same, err = w.look(ctx, wants, filled)
	if err != nil || !same || !seen.show(filled) {
		return surprise(err)
	}
	remember(nil)
	return true, nil
}

// A glance is what look saw of a tab.
type glance struct {
	rows  int              // with anything in the key's column, the header included
	at    map[string]int   // key → row
	cells map[int][]string // of the rows asked for, ours without the key
}

type glances [numTabs]glance

// show says whether rows still are where they were written, and as they were written.
func (g glances) show(rows []edit) bool {
	for _, e := range rows {
		l := line{cells: g[e.id.tab].cells[e.row]}
		if g[e.id.tab].at[e.id.key] != e.row || !l.is(append([]any{e.id.key}, e.values...)) {
			return false
		}
	}
	return true
}

// look reads headers and keys of the tabs that wants names, and the cells of some
// rows; same says that columns and known keys are where they were.
func (w *Writer) look(ctx context.Context, wants *[numTabs]*want, rows []edit) (seen glances, same bool, err error) {
	type part struct {
		tab, from, to int // rows; from < 0: the keys, else to included
	}
	var parts []part
	var areas []string
	for t, want := range wants {
		if len(want.order) == 0 {
			continue
		}
		v := w.views[t]
		last := slices.Max(v.layout.at)
		key := column(v.layout.at[0])
		parts = append(parts, part{tab: t, from: v.layout.head, to: v.layout.head}, part{tab: t, from: -1})
		areas = append(areas, area(t, v.layout.head, 0, v.layout.head, last), fmt.Sprintf("'%s'!%s:%s", tabs[t].title, key, key))
		for _, run := range runs(rows, t) {
			parts = append(parts, part{t, run[0], run[1]})
			areas = append(areas, area(t, run[0], 0, run[1], last))
		}
	}
	grids, err := w.client.get(ctx, areas)
	if err != nil {
		return seen, false, err
	}
	for i, p := range parts {
		lay, g := w.views[p.tab].layout, &seen[p.tab]
		pick := func(row []string, c int) string {
			if c < len(row) {
				return row[c]
			}
			return ""
		}
		row := func(n int) []string {
			if n < len(grids[i]) {
				return grids[i][n]
			}
			return nil
		}
		switch {
		case p.from == lay.head:
			for c, name := range tabs[p.tab].columns {
				if slices.Index(row(0), name) != lay.at[c] {
					return seen, false, nil
				}
			}
		case p.from < 0:
			*g = glance{rows: len(grids[i]), at: map[string]int{}, cells: map[int][]string{}}
			for r := range grids[i] {
				key := pick(row(r), 0)
				if r == lay.head || !w.views[p.tab].keys[key] {
					// A key of ours that we did not know to be there was left by a try
					// whose answer was lost, or by another writer.
					if _, ours := wants[p.tab].rows[key]; ours {
						return seen, false, nil
					}
					continue
				}
				if _, twice := g.at[key]; twice {
					return seen, false, nil
				}
				g.at[key] = r
			}
			if len(g.at) != len(w.views[p.tab].keys) {
				return seen, false, nil
			}
		default:
			for r := p.from; r <= p.to; r++ {
				cells := make([]string, len(lay.at)-1)
				for c := range cells {
					cells[c] = pick(row(r-p.from), lay.at[c+1])
				}
				g.cells[r] = cells
			}
		}
	}
	return seen, true, nil
}

// maxRuns is how many ranges of one tab are read apart; a URL holds no more.
const maxRuns = 40

// runs joins a tab's rows, sorted, to ranges.
func runs(rows []edit, t int) [][2]int {
	var out [][2]int
	for _, e := range rows {
		switch n := len(out); {
		case e.id.tab != t:
		case n > 0 && out[n-1][1]+1 == e.row:
			out[n-1][1] = e.row
		default:
			out = append(out, [2]int{e.row, e.row})
		}
	}
	if len(out) > maxRuns {
		return [][2]int{{out[0][0], out[len(out)-1][1]}}
	}
	return out
}
