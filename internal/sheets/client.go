package sheets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/api/option"
	api "google.golang.org/api/sheets/v4"

	"leadpipe/internal/outcome"
)

// callTimeout bounds one call. Google answers a read of 100,000 cells within seconds
// and gives up on anything by itself after three minutes.
const callTimeout = 30 * time.Second

// maxAge is how long after Google's last answer a write may begin. A process that was
// frozen for longer has to read again what people and other writers did meanwhile.
const maxAge = 10 * time.Second

// A client calls the Sheets API within its quota, one call at a time. It never repeats
// a call: after an ambiguous answer the sheet has to be read again first.
type client struct {
	svc           *api.Service
	id            string
	reads, writes *rate.Limiter
	now           func() time.Time
	sleep         func(context.Context, time.Duration) error
	answered      time.Time // when the last call ended
	fence         string    // what every write has to find; "": none, see mayWrite
	anchor        int64     // the sheet that the fence is put on
	lost          int       // how often there was no fence, since one was held
	calls         *prometheus.CounterVec

	// Calls that are paid for, and whether who calls may use them.
	paidReads, paidWrites int
	spends                bool
	advance               [2]int // how many at most
}

// service makes the API's client for a service account. It reads the account's file
// and makes no call.
func service(ctx context.Context, opt Options) (*api.Service, error) {
	opts := []option.ClientOption{
		option.WithAuthCredentialsFile(option.ServiceAccount, opt.CredentialsFile),
		option.WithScopes(api.SpreadsheetsScope), // the default asks for all of Drive
	}
	if opt.URL != "" {
		opts = append(opts, option.WithEndpoint(opt.URL))
	}
	svc, err := api.NewService(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("setting up the Sheets client: %w", err)
	}
	return svc, nil
}

func newClient(svc *api.Service, opt Options) *client {
	return &client{
		svc: svc, id: opt.SpreadsheetID,
		reads: perMinute(cmp.Or(opt.Reads, 60)), writes: perMinute(cmp.Or(opt.Writes, 60)),
		now: time.Now, sleep: sleep, advance: [2]int{inAdvance(cmp.Or(opt.Reads, 60)), inAdvance(cmp.Or(opt.Writes, 60))},
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sheets_calls_total", Help: "Calls to Google Sheets, by method and by result: ok or the reason of the failure."}, []string{"method", "result"}),
	}
}

func (c *client) call(ctx context.Context, quota *rate.Limiter, method string, do func(context.Context) error) error {
	paid := &c.paidReads
	if quota == c.writes {
		paid = &c.paidWrites
	}
	if now := c.now(); c.spends && *paid > 0 {
		*paid--
	} else if err := c.sleep(ctx, quota.ReserveN(now, 1).DelayFrom(now)); err != nil {
		return fmt.Errorf("waiting for quota: %w", err)
	}
	if quota == c.writes && c.now().Sub(c.answered) > maxAge {
		return outcome.Temporary(outcome.Conflict, errors.New("what was read is too old to write by it"))
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := classify(method, do(ctx), c.now())
	c.answered = c.now()
	result := "ok"
	if err != nil {
		result = string(outcome.Of(err).Reason)
	}
	c.calls.WithLabelValues(method, result).Inc()
	return err
}

// get reads ranges, one grid of texts each, without blank rows or cells at the ends.
func (c *client) get(ctx context.Context, ranges []string) ([][][]string, error) {
	grids := make([][][]string, len(ranges))
	err := c.call(ctx, c.reads, "values.batchGet", func(ctx context.Context) error {
		r, err := c.svc.Spreadsheets.Values.BatchGet(c.id).Ranges(ranges...).ValueRenderOption("UNFORMATTED_VALUE").
			DateTimeRenderOption("SERIAL_NUMBER").MajorDimension("ROWS").Context(ctx).Do()
		if err != nil {
			return err
		}
		if len(r.ValueRanges) != len(ranges) {
			return outcome.Temporary(outcome.Malformed, fmt.Errorf("asked for %d ranges, got %d", len(ranges), len(r.ValueRanges)))
		}
		for i, v := range r.ValueRanges {
			grids[i] = make([][]string, len(v.Values))
			for j, row := range v.Values {
				grids[i][j] = make([]string, len(row))
				for k, cell := range row {
					grids[i][j][k] = text(cell)
				}
			}
		}
		return nil
	})
	return grids, err
}

// put writes ranges, all or nothing, every value as it is.
func (c *client) put(ctx context.Context, data []*api.ValueRange) error {
	return c.fenced(ctx, c.call(ctx, c.writes, "values.batchUpdate", func(ctx context.Context) error {
		_, err := c.svc.Spreadsheets.Values.BatchUpdate(c.id, &api.BatchUpdateValuesRequest{
			ValueInputOption: "RAW", // "=1+1" and "+33…" stay texts
			Data:             behind(c.fence, data),
		}).Context(ctx).Do()
		return err
	}))
}

// change changes the spreadsheet itself: tabs, grids. It puts a new fence in place of
// the one that is held, which is how such a call finds out that it is gone.
func (c *client) change(ctx context.Context, requests ...*api.Request) error {
	if c.fence == "" {
		return c.update(ctx, requests)
	}
	name, renewal := takeOver([]*api.NamedRange{{NamedRangeId: c.fence}}, c.anchor)
	err := c.update(ctx, append(renewal, requests...))
	if err == nil {
		c.fence = name
	}
	return c.fenced(ctx, err)
}

func (c *client) update(ctx context.Context, requests []*api.Request) error {
	return c.call(ctx, c.writes, "spreadsheets.batchUpdate", func(ctx context.Context) error {
		_, err := c.svc.Spreadsheets.BatchUpdate(c.id, &api.BatchUpdateSpreadsheetRequest{Requests: requests}).Context(ctx).Do()
		return err
	})
}
