package sheets

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

const (
	// patience is how long one call of Handle tries again by itself. It stays
	// below the durable's ack_wait, so that nothing is redelivered meanwhile.
	patience = 20 * time.Second
	// maxBackoff is the longest pause between two tries, before jitter.
	maxBackoff = 8 * time.Second
	// maxRounds is how many rounds of looking and writing may pass in which nothing gets
	// done. Five are enough when nobody edits meanwhile.
	maxRounds = 12
)

// Options is what a Writer needs.
type Options struct {
	SpreadsheetID   string
	CredentialsFile string // of a service account that may edit the spreadsheet
	URL             string // in place of Google's; empty: Google
	Reads, Writes   int    // calls a minute; 0: 60, Google's quota for one account

	Store *state.Store
	// Keys yields the keys of the bucket that begin with one of the kinds, in the stream's
	// order, the revision of each, and whether it was deleted. It returns yield's error.
	Keys func(ctx context.Context, kinds []string, yield func(key string, revision uint64, deleted bool) error) error
	// Read gives the newest message of each key that has one.
	Read func(ctx context.Context, keys []string) ([]contracts.Message, error)

	Registerer prometheus.Registerer // may be nil
}

// A Writer keeps the spreadsheet equal to the bucket. It is safe for concurrent use;
// one call works at a time, an audit only for a slice.
type Writer struct {
	client *client
	store  *state.Store
	opt    Options
	jitter func(time.Duration) time.Duration

	mu      sync.Mutex
	zone    *time.Location
	pages   *[numTabs]*page // where everything is, as far as is known; nil: not known
	newest  uint64          // the last revision handled: what a list of keys has to include
	handled map[string]uint64
	lost    int   // how many rows were missing when that was found out
	syncs   int   // how often all of that was found out
	cells   int   // how many the spreadsheet has
	due     bool  // something moved in the wrong moment: an audit has to look
	repair  *task // the rows that an audit is writing, look by look; nil: none

	faults  map[string]*fault   // what Google does not let us write, by incident id
	round   int                 // of audits: a fault that none of a round meets is mended
	refused map[cell]turnedDown // values that Google turned down, or that did not stay
	barred  map[place]string
	closed  map[int]string // tabs whose form can't be changed, and Google's words
	suspect bool           // a write was refused, and what people put on the cells is known

	rows    *prometheus.CounterVec
	repairs prometheus.Counter
	slices  prometheus.Histogram
}

// A cell is one cell of a row, by the place of its heading among the tab's columns.
type cell struct {
	id     rowID
	column int
}

// turnedDown is a value that a cell does not take, and why.
type turnedDown struct{ value, words string }

// A place is one column of a tab, likewise.
type place struct{ tab, column int }

// New makes a Writer. It reads the credentials' file and calls nobody. An unusable
// file is an error.
func New(ctx context.Context, opt Options) (*Writer, error) {
	switch {
	case opt.SpreadsheetID == "":
		return nil, errors.New("sheets: no spreadsheet id")
	case opt.CredentialsFile == "":
		return nil, errors.New("sheets: no credentials file")
	case opt.Store == nil, opt.Keys == nil, opt.Read == nil:
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
		client: c, store: opt.Store, opt: opt, zone: time.UTC,
		jitter:  func(d time.Duration) time.Duration { return rand.N(d) },
		handled: map[string]uint64{}, faults: map[string]*fault{},
		refused: map[cell]turnedDown{}, barred: map[place]string{}, closed: map[int]string{},
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sheets_rows_written_total", Help: "Rows written to the spreadsheet, by tab."}, []string{"tab"}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sheets_repairs_total", Help: "Rows that an audit found different from the bucket."}),
		slices: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sheets_audit_slice_seconds", Help: "How long a slice of an audit took, for which changes wait.",
			Buckets: []float64{0.25, 0.5, 1, 1.5, 2, 3, 5, 10}}),
	}
	if opt.Registerer != nil {
		opt.Registerer.MustRegister(c.calls, w.rows, w.repairs, w.slices)
	}
	return w
}

// Handle brings the rows of changed records up to date. msgs are changes of the
// bucket, in the stream's order; of several of one key the last one counts. It
// returns an error a message:
//
//   - nil: the row is in the sheet, or there is none to write, or Google does not let us
//     write it and an incident says so: then it is tried again by every audit;
//   - permanent: the record can't be read;
//   - blocked: Google refuses the account or the spreadsheet;
//   - anything else: later. What was written stays, and is found again.
func (w *Writer) Handle(ctx context.Context, msgs []contracts.Message) []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	newest := map[string]contracts.Message{}
	if len(w.handled) > 20_000 {
		clear(w.handled)
	}
	for _, m := range msgs {
		w.newest = max(w.newest, m.Sequence)
		w.handled[m.Subject] = max(w.handled[m.Subject], m.Sequence)
		if old, ok := newest[m.Subject]; !ok || old.Sequence <= m.Sequence {
			newest[m.Subject] = m
		}
	}
	b := w.batch(ctx, newest)
	w.overtaken(b.jobs)
	err := w.persist(ctx, func(ctx context.Context) error { return w.apply(ctx, b.jobs) })
	if err == nil && w.due && w.small() {
		_, err = w.auditSmall(ctx)
	}
	if reportErr := w.report(ctx); reportErr != nil && err == nil {
		err = reportErr
		for _, j := range b.jobs {
			j.done = j.done && !j.aside // nobody would know of it
		}
	}
	errs := make([]error, len(msgs))
	for i, m := range msgs {
		j := b.rows[m.Subject]
		switch bad := b.errs[m.Subject]; {
		case bad != nil:
			errs[i] = bad
		case j != nil && !j.done, j == nil && err != nil && w.pages == nil:
			errs[i] = err
		}
	}
	return errs
}

// Wait is how long a Handle of a few rows that begins now would wait for Google's quota.
// Changes that come meanwhile had better be given to the same call: another one takes as
// much quota again.
func (w *Writer) Wait() time.Duration { return w.client.wait() }

// persist tries until it is done, or until waiting longer is up to the caller. Every
// try starts with a fresh reading, so that an answer that was lost does no harm.
func (w *Writer) persist(ctx context.Context, try func(ctx context.Context) error) error {
	began := w.client.now()
	for attempt := 0; ; attempt++ {
		err := try(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		w.pages = nil
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

// setZone takes over the spreadsheet's time zone: a name, or "GMT-07:00" where Google
// does not know the name. One that nobody knows counts as UTC.
func (w *Writer) setZone(name string) {
	if name == "" || name == w.zone.String() {
		return
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		zone = time.UTC
		if t, err := time.Parse("GMT-07:00", name); err == nil {
			_, offset := t.Zone()
			zone = time.FixedZone(name, offset)
		}
	}
	w.zone = zone
}

// asMoved makes a refusal temporary where the cause is that somebody changed tabs or
// grids meanwhile.
func asMoved(err error) error {
	if o := outcome.Of(err); err != nil && o.Kind == outcome.KindPermanent {
		return outcome.Temporary(outcome.Conflict, err)
	}
	return err
}

func moving() error {
	return outcome.Temporary(outcome.Conflict, fmt.Errorf("the spreadsheet kept changing for %d rounds", maxRounds))
}
