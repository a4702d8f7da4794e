package sheets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/api/googleapi"
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
		now: time.Now, sleep: sleep,
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sheets_calls_total", Help: "Calls to Google Sheets, by method and by result: ok or the reason of the failure."}, []string{"method", "result"}),
	}
}

// perMinute allows at most n calls in any 60 seconds: a fifth of them at once, and
// the others one after the other.
func perMinute(n int) *rate.Limiter {
	burst := max(1, n/5)
	return rate.NewLimiter(rate.Limit(float64(max(1, n-burst))/60), burst)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// awaitWrite returns when a write could begin at once. To wait before reading keeps
// the time short in which a person can move what was read.
func (c *client) awaitWrite(ctx context.Context) error {
	r := c.writes.ReserveN(c.now(), 1)
	d := r.DelayFrom(c.now())
	r.CancelAt(c.now())
	return c.sleep(ctx, d)
}

// spareRead says whether a read that could be done without would leave enough for
// those that could not.
func (c *client) spareRead() bool {
	return c.reads.TokensAt(c.now()) >= float64(c.reads.Burst())/2
}

func (c *client) call(ctx context.Context, quota *rate.Limiter, method string, do func(context.Context) error) error {
	now := c.now()
	if err := c.sleep(ctx, quota.ReserveN(now, 1).DelayFrom(now)); err != nil {
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

// A sheet is what Google says of one: its id and how large its grid is.
type sheet struct {
	id         int64
	rows, cols int
}

// A listing is what Google says of the spreadsheet: its sheets by title, the fences,
// and the first sheet's id.
type listing struct {
	sheets map[string]sheet
	fences []*api.NamedRange
	anchor int64
}

// list asks for the spreadsheet's sheets and fences.
func (c *client) list(ctx context.Context) (listing, error) {
	l := listing{sheets: map[string]sheet{}}
	err := c.call(ctx, c.reads, "spreadsheets.get", func(ctx context.Context) error {
		r, err := c.svc.Spreadsheets.Get(c.id).Fields("sheets.properties(sheetId,title,gridProperties)", "namedRanges(namedRangeId,name)").Context(ctx).Do()
		if err != nil {
			return err
		}
		for i, s := range r.Sheets {
			p := s.Properties
			if p == nil || p.GridProperties == nil {
				continue
			}
			l.sheets[p.Title] = sheet{p.SheetId, int(p.GridProperties.RowCount), int(p.GridProperties.ColumnCount)}
			if i == 0 {
				l.anchor = p.SheetId
			}
		}
		l.fences = fences(r.NamedRanges)
		return nil
	})
	return l, err
}

// get reads ranges, one grid of texts each, without blank rows or cells at the ends.
func (c *client) get(ctx context.Context, ranges []string) ([][][]string, error) {
	grids := make([][][]string, len(ranges))
	err := c.call(ctx, c.reads, "values.batchGet", func(ctx context.Context) error {
		r, err := c.svc.Spreadsheets.Values.BatchGet(c.id).Ranges(ranges...).ValueRenderOption("UNFORMATTED_VALUE").
			DateTimeRenderOption("FORMATTED_STRING").MajorDimension("ROWS").Context(ctx).Do()
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

// classify says what an answer means for the work behind it:
//
//	400, 413, other 4xx   permanent, refused: the request itself is at fault
//	401, 403              blocked, auth: the key, or the sheet is not shared with it
//	404                   blocked, unknown: no such spreadsheet
//	403 of a quota, 429   temporary, rate_limited, after Retry-After
//	408, 409, 5xx         temporary, unavailable
//	no token, 4xx         blocked, auth
//	no answer             temporary, timeout or unavailable
//
// The text never holds what Google says to a 400, since that may quote a cell.
func classify(doing string, err error, now time.Time) error {
	if err == nil {
		return nil
	}
	var done *outcome.Error
	if errors.As(err, &done) {
		return err
	}
	var g *googleapi.Error
	if errors.As(err, &g) {
		return classifyStatus(doing, g, now)
	}
	var token *auth.Error // no token, hence no call
	if errors.As(err, &token) && token.Response != nil && token.Response.StatusCode < 500 && !token.Temporary() {
		return outcome.Blocked(outcome.Auth, fmt.Errorf("%s: the service account gets no token: status %d", doing, token.Response.StatusCode))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return outcome.Temporary(outcome.Timeout, fmt.Errorf("%s: %w", doing, err))
	}
	return outcome.Temporary(outcome.Unavailable, fmt.Errorf("%s: %w", doing, err))
}

func classifyStatus(doing string, g *googleapi.Error, now time.Time) error {
	said := fmt.Errorf("%s: answered %d: %s", doing, g.Code, g.Message)
	quiet := fmt.Errorf("%s: answered %d", doing, g.Code)
	switch {
	case g.Code == http.StatusTooManyRequests, g.Code == http.StatusForbidden && strings.Contains(strings.ToLower(g.Body), "ratelimitexceeded"):
		return outcome.Retry(outcome.RateLimited, retryAfter(g.Header, now), quiet)
	case g.Code == http.StatusUnauthorized, g.Code == http.StatusForbidden:
		return outcome.Blocked(outcome.Auth, said)
	case g.Code == http.StatusNotFound:
		return outcome.Blocked(outcome.Unknown, said)
	case g.Code == http.StatusRequestTimeout, g.Code == http.StatusConflict, g.Code >= 500:
		return outcome.Temporary(outcome.Unavailable, quiet)
	}
	return outcome.Permanent(outcome.Refused, quiet)
}

// retryAfter reads the header in both of its forms; 0 where it is missing.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil {
		return max(0, time.Duration(s)*time.Second)
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}
