package sheets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
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

// perMinute allows at most n calls in any 60 seconds: a sixth of them at once, and
// the others one after the other. A few are kept for calls that were paid for before
// (see setAside).
func perMinute(n int) *rate.Limiter {
	burst := max(1, n/6)
	return rate.NewLimiter(rate.Limit(float64(max(1, n-burst-inAdvance(n)))/60), burst)
}

// inAdvance is how many calls of a quota may be paid for in advance.
func inAdvance(n int) int {
	if n < 30 {
		return 0
	}
	return 4
}

// setAside pays for calls of an audit before it begins a slice, so that no change that
// comes has to wait while the slice waits for quota: one call at a time, and slowly where
// changes need most of the quota.
func (c *client) setAside(ctx context.Context, reads, writes int) error {
	for _, q := range []struct {
		limit *rate.Limiter
		paid  *int
		want  int
	}{{c.reads, &c.paidReads, min(reads, c.advance[0])}, {c.writes, &c.paidWrites, min(writes, c.advance[1])}} {
		for *q.paid < q.want {
			if busy := q.limit.TokensAt(c.now()) < float64(q.limit.Burst())/2; busy {
				if err := c.sleep(ctx, slowly); err != nil {
					return err
				}
			}
			now := c.now()
			if err := c.sleep(ctx, q.limit.ReserveN(now, 1).DelayFrom(now)); err != nil {
				return err
			}
			*q.paid++
		}
	}
	return nil
}

// lookAndWrite is how many reads, and how many writes, a few new rows take.
const lookAndWrite = 2

// wait is how long it takes until there is quota for a few new rows.
func (c *client) wait() time.Duration {
	return max(c.until(c.reads, lookAndWrite), c.until(c.writes, lookAndWrite))
}

// until is how long it takes until a limit allows n calls at once, or as many as it ever
// does.
func (c *client) until(limit *rate.Limiter, n int) time.Duration {
	missing := float64(min(n, limit.Burst())) - limit.TokensAt(c.now())
	return max(0, time.Duration(missing/float64(limit.Limit())*float64(time.Second)))
}

// slowly is the pause before each call that is paid for while changes come.
const slowly = 3 * time.Second

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
	if c.spends && c.paidWrites > 0 {
		return ctx.Err()
	}
	return c.sleep(ctx, c.until(c.writes, 1))
}

// spareRead says whether a read that could be done without would leave enough for
// those that could not. An audit's are paid for.
func (c *client) spareRead() bool {
	return c.spends || c.reads.TokensAt(c.now()) >= float64(c.reads.Burst())/2
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

// A sheet is what Google says of one: its id, its title as a person wrote it, how large
// its grid is, and what people have put on top of it.
type sheet struct {
	id         int64
	title      string
	rows, cols int
	merges     []block
	locked     []block // that this account may not edit
}

// A block is a rectangle of a sheet; ends excluded.
type block struct{ row, col, endRow, endCol int }

func (b block) has(row, col int) bool {
	return row >= b.row && row < b.endRow && col >= b.col && col < b.endCol
}

// area names a block in A1 notation, with the sheet's title.
func (s sheet) area(b block) string {
	return fmt.Sprintf("'%s'!%s%d:%s%d", strings.ReplaceAll(s.title, "'", "''"), column(b.col), b.row+1, column(b.endCol-1), b.endRow)
}

// covered says whether a cell is hidden by a merge, so that it keeps no value.
func (s sheet) covered(row, col int) bool {
	return slices.ContainsFunc(s.merges, func(m block) bool { return m.has(row, col) && (m.row != row || m.col != col) })
}

// whole says whether all of a sheet is locked.
func (s sheet) whole() bool {
	return slices.ContainsFunc(s.locked, func(b block) bool { return b == block{0, 0, s.rows, s.cols} })
}

// A listing is what Google says of the spreadsheet: its sheets, the fences, the sheet to
// put one on, the time zone, and how many cells it has.
type listing struct {
	sheets []sheet
	fences []*api.NamedRange
	anchor int64
	open   bool // there is a sheet to put a fence on
	zone   string
	cells  int
}

// tab finds the sheet of a tab of ours. Titles differ only where they do so without
// regard to letter case.
func (l listing) tab(t int) (sheet, bool) {
	for _, s := range l.sheets {
		if strings.EqualFold(s.title, tabs[t].title) {
			return s, true
		}
	}
	return sheet{}, false
}

// listed are the fields that a listing needs.
const listed = "properties.timeZone,namedRanges(namedRangeId,name,range),sheets(properties(sheetId,title,gridProperties),merges,protectedRanges(range,requestingUserCanEdit,warningOnly))"

// list asks for the spreadsheet's sheets and fences.
func (c *client) list(ctx context.Context) (listing, error) {
	var l listing
	err := c.call(ctx, c.reads, "spreadsheets.get", func(ctx context.Context) error {
		r, err := c.svc.Spreadsheets.Get(c.id).Fields(listed).Context(ctx).Do()
		if err != nil {
			return err
		}
		if r.Properties != nil {
			l.zone = r.Properties.TimeZone
		}
		for _, s := range r.Sheets {
			p := s.Properties
			if p == nil || p.GridProperties == nil {
				continue
			}
			one := sheet{id: p.SheetId, title: p.Title, rows: int(p.GridProperties.RowCount), cols: int(p.GridProperties.ColumnCount)}
			l.cells += one.rows * one.cols
			for _, m := range s.Merges {
				one.merges = append(one.merges, one.block(m))
			}
			for _, p := range s.ProtectedRanges {
				if !p.RequestingUserCanEdit && !p.WarningOnly && p.Range != nil {
					one.locked = append(one.locked, one.block(p.Range))
				}
			}
			l.sheets = append(l.sheets, one)
			if !l.open && !one.isLocked(0, 0) {
				l.anchor, l.open = one.id, true
			}
		}
		l.fences = fences(r.NamedRanges)
		return nil
	})
	return l, err
}

// block reads a range by numbers; ends that are absent reach to the grid's.
func (s sheet) block(r *api.GridRange) block {
	b := block{int(r.StartRowIndex), int(r.StartColumnIndex), int(r.EndRowIndex), int(r.EndColumnIndex)}
	b.endRow, b.endCol = cmp.Or(b.endRow, s.rows), cmp.Or(b.endCol, s.cols)
	return b
}

func (s sheet) isLocked(row, col int) bool {
	return slices.ContainsFunc(s.locked, func(b block) bool { return b.has(row, col) })
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
// What Google says to a 400 may quote a cell, so whatever looks like a number or an
// address of a person is taken out of it.
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
	return outcome.Permanent(outcome.Refused, &refusal{doing: doing, status: g.Code, words: public(g.Message)})
}

// A refusal is a request that Google understood and turned down, with its own words.
type refusal struct {
	doing  string
	status int
	words  string
}

func (r *refusal) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("%s: answered %d: %s", r.doing, r.status, r.words), ": ")
}

// words are what Google said to a request that it turned down; "" for other errors.
func words(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.words
	}
	return ""
}

var personal = regexp.MustCompile(`[^\s"'<>]+@[^\s"'<>]+|\+[0-9][0-9 .-]{6,}[0-9]|\b0[0-9][0-9 .-]{6,}[0-9]|[0-9]{9,}`)

// public takes out of a text what may be about a person.
func public(s string) string {
	return personal.ReplaceAllString(strings.Join(strings.Fields(s), " "), "…")
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
