package sheets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/auth"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/api/option"
	api "google.golang.org/api/sheets/v4"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
	"leadpipe/internal/sandbox/google"
	"leadpipe/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A rig is a bucket on a real server, a spreadsheet and a clock that only moves when
// somebody waits.
type rig struct {
	js     jetstream.JetStream
	store  *state.Store
	paper  *paper
	clock  time.Time
	newest uint64 // the last revision that changes gave
}

func newRig(tb testing.TB) *rig {
	js := natstest.New(tb, natstest.LazySync).JetStream("operator")
	r := &rig{js: js, store: state.New(js, nil), clock: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)}
	r.paper = newPaper(tb, func() time.Time { return r.clock })
	return r
}

// writer makes a writer over the rig's spreadsheet and clock.
func (r *rig) writer(tb testing.TB) *Writer {
	svc, err := api.NewService(context.Background(), option.WithHTTPClient(&http.Client{Transport: r.paper}))
	if err != nil {
		tb.Fatal(err)
	}
	opt := Options{SpreadsheetID: "sheet1", Store: r.store, Keys: r.keys, Read: r.read}
	c := newClient(svc, opt)
	c.now = func() time.Time { return r.clock }
	c.sleep = func(ctx context.Context, d time.Duration) error {
		r.clock = r.clock.Add(max(0, d))
		return ctx.Err()
	}
	w := newWriter(c, opt)
	w.jitter = func(d time.Duration) time.Duration { return d / 2 }
	return w
}

func (r *rig) keys(ctx context.Context, kinds []string, yield func(string, uint64, bool) error) error {
	return bus.Keys(ctx, r.js, kinds, yield)
}

func (r *rig) read(ctx context.Context, keys []string) ([]contracts.Message, error) {
	return bus.Read(ctx, r.js, keys)
}

// scan reads the bucket.
func (r *rig) scan(ctx context.Context, yield func(contracts.Message) error) error {
	return bus.Scan(ctx, r.js, func(key string) bool {
		kind, _, _ := strings.Cut(key, ".")
		return slices.Contains([]string{"lead", "customer", "subscription", "churn", "optout", "incident"}, kind)
	}, yield)
}

// changes gives the revisions that came since the last call, as the durable would.
func (r *rig) changes(tb testing.TB) []contracts.Message {
	tb.Helper()
	after := r.newest
	var out []contracts.Message
	if err := r.scan(context.Background(), func(m contracts.Message) error {
		if m.Sequence > after {
			out = append(out, m)
			r.newest = max(r.newest, m.Sequence)
		}
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
	return out
}

func (r *rig) put(tb testing.TB, records map[string]any) {
	tb.Helper()
	keys := make([]string, 0, len(records))
	for k := range records {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for part := range slices.Chunk(keys, 800) {
		if err := r.store.Update(tb.Context(), func(tx *state.Tx) error {
			if err := tx.Need(part...); err != nil {
				return err
			}
			for _, k := range part {
				if err := tx.Put(k, records[k]); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			tb.Fatal(err)
		}
	}
}

func (r *rig) delete(tb testing.TB, key string) {
	tb.Helper()
	kv, err := r.js.KeyValue(tb.Context(), contracts.Bucket)
	if err != nil {
		tb.Fatal(err)
	}
	if err := kv.Delete(tb.Context(), key); err != nil {
		tb.Fatal(err)
	}
}

// handle gives the writer what has changed, and fails on any error.
func (r *rig) handle(tb testing.TB, w *Writer) {
	tb.Helper()
	msgs := r.changes(tb)
	for i, err := range w.Handle(tb.Context(), msgs) {
		if err != nil {
			tb.Fatalf("handling %s: %v", msgs[i].Subject, err)
		}
	}
}

func (r *rig) audit(tb testing.TB, w *Writer) int {
	tb.Helper()
	n, err := w.Audit(tb.Context())
	if err != nil {
		tb.Fatalf("audit: %v", err)
	}
	return n
}

var born = time.Date(2026, 2, 1, 8, 30, 0, 0, time.UTC)

// lead makes a lead whose every field tells it from others.
func lead(n int) contracts.Lead {
	id := strconv.Itoa(1_000_000 + n)
	return contracts.Lead{
		ID: id, CreatedAt: born.Add(time.Duration(n) * time.Minute), Name: "Léa Martin " + id, FirstName: "Léa",
		Email: "lea." + id + "@example.com", Phone: fmt.Sprintf("+336399%05d", (80000+n)%100000), FormID: "form1", PageID: "page1",
		Status: contracts.LeadNew, Answers: map[string][]string{},
	}
}

func leads(from, to int) map[string]any {
	m := map[string]any{}
	for n := from; n < to; n++ {
		m[contracts.KeyLead(lead(n).ID)] = lead(n)
	}
	return m
}

// paris is the time zone of the spreadsheet.
var paris = func() *time.Location {
	zone, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		panic(err)
	}
	return zone
}()

// person is how a person sees a cell: times on the clock of the spreadsheet's time zone.
func person(v any, _ string) string {
	switch v := v.(type) {
	case time.Time:
		return v.In(paris).Format("2006-01-02 15:04:05")
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case int64:
		return strconv.FormatInt(v, 10)
	}
	s, _ := v.(string)
	return s
}

// check says how the sheet differs from the bucket, "" when not at all: each key has
// one row, right in every cell.
func (r *rig) check(tb testing.TB) string {
	tb.Helper()
	w := r.writer(tb)
	all, err := w.keys(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	diff := ""
	for t := range tabs {
		g := r.paper.page(tb, tabs[t].title)
		should, is := map[string]map[string]string{}, map[string]map[string]string{}
		rows, err := w.read(tb.Context(), t, all[t].order)
		if err != nil {
			tb.Fatal(err)
		}
		for key, cells := range rows {
			if cells == nil {
				continue
			}
			row := map[string]string{}
			for i, c := range cells {
				if s := person(c, tabs[t].columns[i].name); s != "" {
					row[tabs[t].columns[i].name] = s
				}
			}
			should[key] = row
		}
		for _, row := range g.table() {
			key := row[tabs[t].columns[0].name]
			if key == "" {
				continue
			}
			if is[key] != nil {
				diff += fmt.Sprintf("%s: %s has two rows\n", tabs[t].title, key)
			}
			for heading, shown := range row {
				i := slices.Index(tabs[t].names(), heading)
				if i < 0 {
					delete(row, heading)
				} else if days, err := strconv.ParseFloat(shown, 64); err == nil && tabs[t].columns[i].kind == moment {
					// A row that a person inserted has no format of its own.
					row[heading] = time.Date(1899, 12, 30, 0, 0, 0, 0, time.UTC).Add(time.Duration(days*86400+0.5) * time.Second).Format("2006-01-02 15:04:05")
				}
			}
			is[key] = row
		}
		diff += cmp.Diff(should, is)
	}
	return diff
}

func (r *rig) mustMatch(tb testing.TB) {
	tb.Helper()
	if d := r.check(tb); d != "" {
		tb.Fatalf("bucket (-) and sheet (+) differ:\n%s", d)
	}
	if n := r.paper.Stats().QuotaViolations; n > 0 {
		tb.Fatalf("%d calls beyond the quota", n)
	}
}

func TestEveryTabShowsItsRecords(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	at := born
	sub := func(id, status string, asOf time.Time, amount int64) contracts.Subscription {
		return contracts.Subscription{ID: id, CustomerID: "cus_1", Status: status, PriceID: "price_" + id, Amount: &amount, Currency: "eur",
			AsOf: asOf, CurrentPeriodEnd: at.AddDate(0, 1, 0), FailedAttempts: 2}
	}
	ended := sub("sub_3", "canceled", at.Add(3*time.Hour), 300)
	ended.EndedAt = at.Add(3 * time.Hour)
	r.put(t, map[string]any{
		"lead.1": contracts.Lead{ID: "1", CreatedAt: at, Name: "Léa", Phone: "+33639980001", Email: "lea@example.com", FormID: "f", Status: contracts.LeadOptedOut, OptedOutAt: at, CustomerID: "cus_1",
			Answers: map[string][]string{"city": {"Lyon", "Paris"}, "budget": {"500"}}, Platform: "ig", CampaignID: "c1", AdID: "a1"},
		"customer.cus_1": contracts.Customer{ID: "cus_1", Name: "Léa", Email: "lea@example.com", Phone: "+33639980001", LeadID: "1", Status: contracts.CustomerPastDue, Access: contracts.AccessActive,
			Subscriptions: []string{"sub_1", "sub_2", "sub_3"}, Since: at},
		"subscription.sub_1": sub("sub_1", "past_due", at.Add(2*time.Hour), 1900), // runs, newest
		"subscription.sub_2": sub("sub_2", "active", at.Add(time.Hour), 200),
		"subscription.sub_3": ended,
		"churn.sub_3":        contracts.Churn{SubscriptionID: "sub_3", CustomerID: "cus_1", Email: "lea@example.com", PriceID: "price_sub_3", Amount: new(int64(300)), Currency: "eur", EndedAt: at, Reason: "cancellation_requested"},
		"optout.33639980001": contracts.OptOut{Phone: "+33639980001", OptedOutAt: at, Keyword: "STOP", ConfirmedAt: at.Add(time.Second), Source: contracts.OptOutBySMS},
		"incident.leads-9": contracts.Incident{ID: "leads-9", At: at, Severity: contracts.SeverityWarning, Consumer: "leads", Reason: "no such lead", Action: "nats consumer reset WEBHOOKS leads --sequence 9",
			Count: 3, ResolvedAt: at.Add(time.Hour)},
	})
	msgs := r.changes(t)
	var leadTime time.Time
	for _, m := range msgs {
		if m.Subject == "$KV.crm.lead.1" {
			leadTime = m.Time
		}
	}
	for _, err := range w.Handle(t.Context(), msgs) {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[string][]map[string]string{
		"Leads": {{"id": "1", "created_at": "2026-02-01 09:30:00", "name": "Léa", "phone": "+33639980001", "email": "lea@example.com", "form_id": "f",
			"status": "opted_out", "opted_out_at": "2026-02-01 09:30:00", "customer_id": "cus_1", "updated_at": person(leadTime, ""),
			"answers": "budget: 500\ncity: Lyon, Paris", "platform": "ig", "campaign_id": "c1", "ad_id": "a1"}},
		"Clients": {{"customer_id": "cus_1", "name": "Léa", "email": "lea@example.com", "phone": "+33639980001", "lead_id": "1", "status": "past_due", "access": "active",
			"subscription_id": "sub_1", "price_id": "price_sub_1", "amount": "19", "currency": "eur", "current_period_end": "2026-03-01 09:30:00", "failed_attempts": "2",
			"updated_at": "2026-02-01 11:30:00"}},
		"Churn": {{"subscription_id": "sub_3", "customer_id": "cus_1", "email": "lea@example.com", "price_id": "price_sub_3", "amount": "3", "currency": "eur",
			"ended_at": "2026-02-01 09:30:00", "reason": "cancellation_requested"}},
		"Opt-outs": {{"phone": "+33639980001", "opted_out_at": "2026-02-01 09:30:00", "keyword": "STOP", "confirmed_at": "2026-02-01 09:30:01"}},
		"Incidents": {{"id": "leads-9", "at": "2026-02-01 09:30:00", "severity": "warning", "consumer": "leads", "reason": "no such lead", "action": "nats consumer reset WEBHOOKS leads --sequence 9",
			"count": "3", "resolved_at": "2026-02-01 10:30:00"}},
	}
	got := map[string][]map[string]string{}
	for _, tab := range tabs {
		got[tab.title] = r.paper.page(t, tab.title).table()
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	for _, tab := range tabs {
		if d := cmp.Diff(tab.names(), r.paper.page(t, tab.title).cells()[0]); d != "" {
			t.Errorf("header of %s: %s", tab.title, d)
		}
	}
	res, err := w.client.svc.Spreadsheets.Values.Get("sheet1", "Clients!J2").ValueRenderOption("UNFORMATTED_VALUE").Do()
	if err != nil {
		t.Fatal(err)
	}
	if amount, ok := res.Values[0][0].(float64); !ok || amount != 19 {
		t.Errorf("the amount is %v, not a number", res.Values[0][0])
	}

	// A change of the subscription alone rewrites its customer's row.
	changed := sub("sub_1", "active", at.Add(4*time.Hour), 2900)
	r.put(t, map[string]any{"subscription.sub_1": changed})
	r.handle(t, w)
	if got := r.paper.page(t, "Clients").table()[0]; got["amount"] != "29" || got["updated_at"] != "2026-02-01 13:30:00" {
		t.Errorf("row after the subscription's change: %v", got)
	}
	r.mustMatch(t)
}

func TestOddTextsArriveAsText(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	long := strings.Repeat("é", maxCell+1)
	names := map[string]string{ // written → read
		`=HYPERLINK("https://example.com","x")`: `=HYPERLINK("https://example.com","x")`,
		"+33639980001":                          "+33639980001",
		"00012":                                 "00012",
		"'quoted":                               "'quoted",
		"TRUE":                                  "TRUE",
		"2026-01-01":                            "2026-01-01",
		"👩‍👩‍👧 Zoé":                             "👩‍👩‍👧 Zoé",
		"محمد بن علي":                           "محمد بن علي",
		"two\r\nlines\rthree\n":                 "two\nlines\nthree\n",
		"nul\x00bell\x07":                       "nulbell",
		long:                                    long[:2*(maxCell-4)] + " […]",
		strings.Repeat("😀", maxCell/2):          strings.Repeat("😀", maxCell/2),
		strings.Repeat("😀", maxCell/2+1):        strings.Repeat("😀", maxCell/2-2) + " […]",
	}
	records, want := map[string]any{}, map[string]string{}
	for name, read := range names {
		l := lead(len(records))
		l.Name = name
		records[contracts.KeyLead(l.ID)], want[l.ID] = l, read
	}
	r.put(t, records)
	r.handle(t, w)
	got := map[string]string{}
	for _, row := range r.paper.page(t, "Leads").table() {
		got[row["id"]] = row["name"]
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r.mustMatch(t)
	if n := r.audit(t, w); n != 0 {
		t.Errorf("an audit found %d rows to repair", n)
	}
}

func TestTenThousandLeadsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 10_000))
	began := r.clock
	for part := range slices.Chunk(r.changes(t), 3000) {
		for _, err := range w.Handle(t.Context(), part) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	r.mustMatch(t)
	if waited := r.clock.Sub(began); waited > 30*time.Second {
		t.Errorf("waited %v for quota", waited)
	}
	rows := r.paper.page(t, "Leads").table()
	if len(rows) != 10_000 || rows[0]["id"] != "1000000" || rows[9999]["id"] != "1009999" {
		t.Errorf("%d rows, from %s to %s: not in the order of their arrival", len(rows), rows[0]["id"], rows[len(rows)-1]["id"])
	}
}

func TestSmallChangesTakeFewCalls(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 20))
	r.handle(t, w)
	calls := 0
	r.paper.before = func(string) *mishap { calls++; return nil }
	r.put(t, leads(20, 22))
	r.handle(t, w)
	if calls > 5 {
		t.Errorf("two new rows took %d calls", calls)
	}
	calls = 0
	l := lead(3)
	l.Status = contracts.LeadContacted
	r.put(t, map[string]any{contracts.KeyLead(l.ID): l})
	r.handle(t, w)
	if calls > 3 {
		t.Errorf("a changed row took %d calls", calls)
	}
	r.mustMatch(t)
}

func TestQuotaHoldsUnderAStreamOfChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	for n := range 150 {
		r.put(t, leads(n, n+1))
		r.handle(t, w)
	}
	r.mustMatch(t) // which looks for calls beyond the quota
}

// During the whole of each case, a person does something to the sheet.
func TestRowsAreFoundAgain(t *testing.T) {
	t.Parallel()
	clearRow := func(g hands, row int) {
		for c := range g.cells()[row] {
			g.set(row, c, "")
		}
	}
	deleteColumn := func(g hands, col int) { g.must(g.paper.DeleteColumn(g.title, col+1)) }
	for name, edit := range map[string]func(g hands){
		"sorted":                  func(g hands) { g.sortDown(0) },
		"row inserted":            func(g hands) { g.insertRow(3) },
		"row deleted":             func(g hands) { g.deleteRow(4) },
		"several deleted":         func(g hands) { g.deleteRow(4); g.deleteRow(2); g.deleteRow(1) },
		"emptied":                 func(g hands) { g.clear() },
		"column inserted between": func(g hands) { g.insertColumn(3); g.set(0, 3, "Mine"); g.set(2, 3, "x") },
		"column inserted before":  func(g hands) { g.insertColumn(0) },
		"column deleted":          func(g hands) { deleteColumn(g, 4) },
		"first column deleted":    func(g hands) { deleteColumn(g, 0) },
		"header deleted":          func(g hands) { g.deleteRow(0) },
		"header emptied":          func(g hands) { clearRow(g, 0) },
		"heading renamed":         func(g hands) { g.set(0, 4, "E-mail") },
		"key's heading renamed":   func(g hands) { g.set(0, 0, "Lead") },
		"keys emptied":            func(g hands) { g.set(2, 0, ""); g.set(5, 0, "") },
		"keys overwritten":        func(g hands) { g.set(2, 0, "1000006"); g.set(5, 0, "x") },
		"cells overwritten":       func(g hands) { g.set(2, 2, "somebody"); g.set(2, 6, "") },
		"grid cut": func(g hands) {
			for range 985 {
				g.deleteRow(12)
			}
		},
		"person's row below":       func(g hands) { g.set(30, len(tabs[leadsTab].columns), "total") },
		"sorted, title row on top": func(g hands) { g.sortDown(0); g.insertRow(0); g.set(0, 2, "Our leads") },
		"sorted, column inserted":  func(g hands) { g.sortDown(0); g.insertColumn(5) },
		"row copied": func(g hands) {
			for c, text := range g.cells()[3][:len(tabs[leadsTab].columns)] {
				g.set(9, c, text)
			}
		},
		"tab deleted": func(g hands) { g.must(g.paper.DeleteTab(g.title)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.writer(t)
			r.put(t, leads(0, 8))
			r.handle(t, w)
			g := r.paper.page(t, "Leads")
			notesAt := g.notes()
			for n := range 8 {
				g.set(n+1, notesAt, "note "+g.text(n+1, 0))
			}
			edit(g)
			notes := func() (n int) {
				for _, row := range g.cells() {
					for _, text := range row {
						id, ok := strings.CutPrefix(text, "note ")
						if ok {
							n++
						}
						if ok && slices.Contains(slices.Concat(g.cells()[:min(2, len(g.cells()))]...), "id") && !slices.Contains(row, id) {
							t.Errorf("the note on %s is in another row: %v", id, row)
						}
					}
				}
				return n
			}
			before := 0
			for _, row := range g.cells() {
				before += strings.Count(strings.Join(row, "|"), "note ")
			}
			changed := lead(5)
			changed.Status = contracts.LeadContacted
			r.put(t, leads(8, 10))
			r.put(t, map[string]any{contracts.KeyLead(changed.ID): changed})
			r.handle(t, w)
			r.audit(t, w)
			if got := notes(); got != before {
				t.Errorf("%d notes of %d are left", got, before)
			}
			if g.text(0, 2) == "Our leads" {
				g.deleteRow(0)
			}
			r.mustMatch(t)
			if n := r.audit(t, w); n != 0 {
				t.Errorf("a second audit repaired %d rows", n)
			}
		})
	}
}

// In the moment between a look and a write, or an answer, a person moves rows. One call
// of Handle mends what that did, with no audit from outside, and leaves every note in
// its row.
func TestMovedInTheMoment(t *testing.T) {
	t.Parallel()
	for name, person := range map[string]func(g hands){
		"sorted":              func(g hands) { g.sortDown(0) },
		"inserted":            func(g hands) { g.insertRow(1) },
		"inserted and sorted": func(g hands) { g.insertRow(3); g.insertRow(2); g.sortDown(2) },
		"changed row deleted": func(g hands) { g.deleteRow(6) },
		"row deleted":         func(g hands) { g.deleteRow(2) },
	} {
		for nth := 1; nth <= 2; nth++ {
			for _, lost := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, write %d, answer lost %v", name, nth, lost), func(t *testing.T) {
					t.Parallel()
					r := newRig(t)
					w := r.writer(t)
					r.put(t, leads(0, 8))
					r.handle(t, w)
					r.clock = r.clock.Add(time.Minute) // for a last look there must be quota
					g := r.paper.page(t, "Leads")
					notesAt := g.notes()
					for n := range 8 {
						g.set(n+1, notesAt, "note "+g.text(n+1, 0))
					}
					writes, notes := 0, 0
					r.paper.before = func(method string) *mishap {
						if strings.HasPrefix(method, "POST") {
							if writes++; writes == nth {
								person(g)
								for _, row := range g.cells() {
									notes += strings.Count(strings.Join(row, "|"), "note ")
								}
							}
						}
						return nil
					}
					r.paper.after = func(method string) *mishap {
						if lost && writes == nth && strings.HasPrefix(method, "POST") {
							return &mishap{}
						}
						return nil
					}
					l := lead(5)
					l.Status = contracts.LeadClient
					r.put(t, leads(8, 9))
					r.put(t, map[string]any{contracts.KeyLead(l.ID): l})
					r.handle(t, w)
					if lost {
						r.audit(t, w) // what became of the lost write is not looked for at once
					}
					r.mustMatch(t)
					for _, row := range g.table() {
						if note := row["Notes"]; note != "" {
							notes--
							if note != "note "+row["id"] {
								t.Errorf("%q stands beside %s", note, row["id"])
							}
						}
					}
					if notes != 0 {
						t.Errorf("%d notes lost", notes)
					}
				})
			}
		}
	}
}

// A small change makes Handle see, and mend, what a person did to other rows.
func TestOtherRowsAreMendedAtTheNextChange(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(g hands){
		"deleted": func(g hands) { g.deleteRow(2) },
		"copied": func(g hands) {
			for c, text := range g.cells()[3] {
				g.set(12, c, text)
			}
		},
		"heading": func(g hands) { g.set(0, 3, "Mobile") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.writer(t)
			r.put(t, leads(0, 8))
			r.handle(t, w)
			edit(r.paper.page(t, "Leads"))
			r.put(t, leads(8, 9))
			r.handle(t, w)
			r.mustMatch(t)
		})
	}
}

// Cells that landed in a wrong row, and that quota left no call to look at, are seen
// before anything else is written.
func TestUnseenWriteIsLookedAtFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 5))
	r.handle(t, w)
	r.put(t, changed(2))
	r.paper.before = func(method string) *mishap {
		if method == "POST values:batchUpdate" {
			r.paper.before = nil
			r.paper.page(t, "Leads").shuffle(5)
			w.client.reads.AllowN(r.clock, int(w.client.reads.TokensAt(r.clock)))
		}
		return nil
	}
	r.handle(t, w)
	if r.check(t) == "" {
		t.Fatal("nothing went wrong, so this test shows nothing")
	}
	r.put(t, leads(5, 6))
	r.handle(t, w)
	r.mustMatch(t)
}

func TestDeletedRecordIsEmptied(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 3))
	r.handle(t, w)
	g := r.paper.page(t, "Leads")
	notesAt := g.notes()
	g.set(2, notesAt, "mine")
	r.delete(t, contracts.KeyLead(lead(1).ID))
	r.handle(t, w)
	r.mustMatch(t)
	if got := g.table()[1]; len(got) != 1 || got["Notes"] != "mine" {
		t.Errorf("what is left of the row: %v", got)
	}
}

func TestReplayWritesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 600))
	r.handle(t, w)
	fence := false // a new writer takes it
	r.paper.before = func(method string) *mishap {
		if strings.HasPrefix(method, "POST") && !(fence && method == "POST sheet1:batchUpdate") {
			t.Errorf("a replay wrote: %s", method)
		}
		return nil
	}
	r.newest = 0
	r.handle(t, w)
	r.newest, fence = 0, true
	r.handle(t, r.writer(t))
}

func TestRefusedRowIsIsolated(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 40, 600} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.writer(t)
			r.put(t, leads(0, 1))
			r.handle(t, w)
			bad := lead(n / 2)
			r.paper.refuse = bad.Name + `"`
			r.put(t, leads(1, n+1))
			r.handle(t, w)
			r.wantIncident(t, "sheets-place-leads-", "column name", "Invalid data[1]: the value is not taken, says …")
			rows := r.paper.page(t, "Leads").table()
			if len(rows) != n+1 {
				t.Errorf("%d rows, want %d", len(rows), n+1)
			}
			for _, row := range rows {
				if row["id"] != bad.ID && row["name"] == "" {
					t.Errorf("row %s has no name", row["id"])
				}
			}
			// Once what was wrong is right, the row is written like any other.
			bad.Name = "Léa Martin"
			r.put(t, map[string]any{contracts.KeyLead(bad.ID): bad})
			r.handle(t, w)
			r.audit(t, w)
			r.handle(t, w)
			r.mustMatch(t)
			r.wantNoIncident(t)
		})
	}
}

// openIncidents are those that nothing has mended yet.
func (r *rig) openIncidents(tb testing.TB) (open []contracts.Incident) {
	tb.Helper()
	if err := r.scan(context.Background(), func(m contracts.Message) error {
		var i contracts.Incident
		if strings.HasPrefix(m.Subject, "$KV.crm.incident.") && json.Unmarshal(m.Data, &i) == nil && i.ResolvedAt.IsZero() {
			open = append(open, i)
		}
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
	return open
}

// wantIncident wants exactly one open incident, with some words in it.
func (r *rig) wantIncident(tb testing.TB, id string, words ...string) {
	tb.Helper()
	open := r.openIncidents(tb)
	if len(open) != 1 || !strings.HasPrefix(open[0].ID, id) || open[0].Consumer != "sheets" {
		tb.Fatalf("open incidents: %+v", open)
	}
	for _, word := range words {
		if !strings.Contains(open[0].Reason, word) {
			tb.Errorf("%q is not in %q", word, open[0].Reason)
		}
	}
}

func (r *rig) wantNoIncident(tb testing.TB) {
	tb.Helper()
	if open := r.openIncidents(tb); len(open) != 0 {
		tb.Errorf("open incidents: %+v", open)
	}
}

// What is turned down in every row is one column's fault: the rows come without it.
func TestRefusedColumnIsSetAside(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 1))
	r.handle(t, w)
	r.paper.refuse = "Léa"
	r.put(t, leads(1, 60))
	r.handle(t, w)
	r.wantIncident(t, "sheets-place-leads-", "column name of tab Leads")
	rows := r.paper.page(t, "Leads").table()
	for _, row := range rows[1:] {
		if row["name"] != "" || row["email"] == "" || row["status"] != "new" {
			t.Errorf("row %v", row)
		}
	}
	if len(rows) != 60 {
		t.Errorf("%d rows", len(rows))
	}
	r.audit(t, w)
	r.handle(t, w)
	r.wantIncident(t, "sheets-place-leads-", "column name of tab Leads")
	r.paper.refuse = ""
	r.audit(t, w)
	r.handle(t, w)
	r.mustMatch(t)
	r.wantNoIncident(t)
}

func TestUnreadableRecordIsPermanentAndAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 2))
	r.put(t, map[string]any{"lead.bad": []int{1}, "subscription.bad": "x", "customer.bad": 7})
	msgs := r.changes(t)
	for i, err := range w.Handle(t.Context(), msgs) {
		bad := strings.HasSuffix(msgs[i].Subject, ".bad")
		if o := outcome.Of(err); bad != (err != nil && o.Kind == outcome.KindPermanent && o.Reason == outcome.Malformed) {
			t.Errorf("%s: %v", msgs[i].Subject, err)
		}
	}
	r.mustMatch(t)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status int
		body   string
		header http.Header
		want   outcome.Error
	}{
		{"bad request", 400, "", nil, outcome.Error{Kind: outcome.KindPermanent, Reason: outcome.Refused}},
		{"no or old token", 401, "", nil, outcome.Error{Kind: outcome.KindBlocked, Reason: outcome.Auth}},
		{"not shared", 403, "", nil, outcome.Error{Kind: outcome.KindBlocked, Reason: outcome.Auth}},
		{"quota, the old way", 403, `{"error":{"errors":[{"reason":"userRateLimitExceeded"}],"code":403}}`, nil, outcome.Error{Kind: outcome.KindTemporary, Reason: outcome.RateLimited}},
		{"no such spreadsheet", 404, "", nil, outcome.Error{Kind: outcome.KindBlocked, Reason: outcome.Unknown}},
		{"request time-out", 408, "", nil, outcome.Error{Kind: outcome.KindTemporary, Reason: outcome.Unavailable}},
		{"aborted", 409, "", nil, outcome.Error{Kind: outcome.KindTemporary, Reason: outcome.Unavailable}},
		{"too large", 413, "", nil, outcome.Error{Kind: outcome.KindPermanent, Reason: outcome.Refused}},
		{"quota", 429, "", nil, outcome.Error{Kind: outcome.KindTemporary, Reason: outcome.RateLimited}},
		{"quota, with a pause", 429, "", http.Header{"Retry-After": {"7"}}, outcome.Error{Kind: outcome.KindTemporary, Reason: outcome.RateLimited, After: 7 * time.Second}},
		{"internal", 500, "", nil, outcome.Error{Kind: outcome.KindTemporary, Reason: outcome.Unavailable}},
		{"unavailable", 503, "", nil, outcome.Error{Kind: outcome.KindTemporary, Reason: outcome.Unavailable}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.writer(t)
			body := c.body
			if body == "" {
				body = fmt.Sprintf(`{"error":{"code":%d,"message":"lea@example.com"}}`, c.status)
			}
			svc, err := api.NewService(t.Context(), option.WithHTTPClient(&http.Client{Transport: roundTrip(func(q *http.Request) (*http.Response, error) {
				return answer(q, c.status, c.header, body)
			})}))
			if err != nil {
				t.Fatal(err)
			}
			w.client.svc = svc
			w.client.answered = r.clock
			err = w.client.put(t.Context(), nil)
			got := *outcome.Of(err)
			got.Err = nil
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if c.status == 400 && strings.Contains(err.Error(), "@") {
				t.Errorf("the error quotes what Google says: %v", err)
			}
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestBusyGoogleIsAskedAgainLater(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]*mishap{
		"quota":     {status: 429, header: http.Header{"Retry-After": {"3"}}},
		"error":     {status: 503},
		"no answer": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.writer(t)
			r.put(t, leads(0, 3))
			bad := 3
			var asked []time.Time
			r.paper.before = func(string) *mishap {
				asked = append(asked, r.clock)
				if bad--; bad >= 0 {
					return f
				}
				return nil
			}
			r.handle(t, w)
			r.mustMatch(t)
			for i := 1; i <= 3; i++ {
				if d := asked[i].Sub(asked[i-1]); d < 200*time.Millisecond || f.status == 429 && d < 3*time.Second {
					t.Errorf("asked again after %v", d)
				}
			}
		})
	}
}

func TestLongOutageIsHandedBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 2))
	r.paper.before = func(string) *mishap { return &mishap{status: 429, header: http.Header{"Retry-After": {"55"}}} }
	began := r.clock
	for _, err := range w.Handle(t.Context(), r.changes(t)) {
		if o := outcome.Of(err); o.Kind != outcome.KindTemporary || o.Reason != outcome.RateLimited || o.After != 55*time.Second {
			t.Errorf("got %+v", o)
		}
	}
	if d := r.clock.Sub(began); d > patience {
		t.Errorf("came back after %v", d)
	}
	r.paper.before = nil
	r.newest = 0
	r.handle(t, w)
	r.mustMatch(t)
}

func TestWrittenButNotAnsweredMakesNoSecondRow(t *testing.T) {
	t.Parallel()
	for name, warm := range map[string]bool{"first audit": false, "few changes": true} {
		for nth := 1; nth <= 4; nth++ {
			t.Run(fmt.Sprint(name, ", write ", nth), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				w := r.writer(t)
				if warm {
					r.put(t, leads(0, 5))
					r.handle(t, w)
				}
				r.put(t, leads(5, 9))
				writes := 0
				r.paper.after = func(method string) *mishap {
					if strings.HasPrefix(method, "POST") {
						if writes++; writes == nth {
							return &mishap{}
						}
					}
					return nil
				}
				r.handle(t, w)
				r.mustMatch(t)
			})
		}
	}
}

func TestStaleScanIsNotTrusted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 2))
	r.handle(t, w)
	w.opt.Keys = func(ctx context.Context, kinds []string, yield func(string, uint64, bool) error) error {
		return r.keys(ctx, kinds, func(key string, revision uint64, deleted bool) error {
			if revision == r.newest {
				return nil // as a replica that lags would
			}
			return yield(key, revision, deleted)
		})
	}
	if _, err := w.Audit(t.Context()); err == nil || outcome.Of(err).Kind != outcome.KindTemporary {
		t.Errorf("an audit over an older bucket than was handled: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := Options{SpreadsheetID: "s", CredentialsFile: "/nonexistent/file.json", Store: r.store, Keys: r.keys, Read: r.read}
	for name, change := range map[string]func(*Options){
		"no id":            func(o *Options) { o.SpreadsheetID = "" },
		"no file":          func(o *Options) { o.CredentialsFile = "" },
		"no store":         func(o *Options) { o.Store = nil },
		"no keys":          func(o *Options) { o.Keys = nil },
		"negative quota":   func(o *Options) { o.Reads = -1 },
		"file not present": func(*Options) {},
	} {
		o := good
		change(&o)
		if w, err := New(t.Context(), o); err == nil || w != nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCancelledHandleReturnsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 2))
	msgs := r.changes(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.paper.before = func(string) *mishap { cancel(); return nil }
	for _, err := range w.Handle(ctx, msgs) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

// A process that was frozen between reading and writing reads again.
func TestFrozenWriterReadsAgain(t *testing.T) {
	t.Parallel()
	for name, warm := range map[string]bool{"audit": false, "few changes": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.writer(t)
			r.put(t, leads(0, 5))
			if warm {
				r.handle(t, w)
			}
			var reads, writes int
			var read time.Time
			r.paper.before = func(method string) *mishap {
				if strings.HasPrefix(method, "POST") {
					if writes++; r.clock.Sub(read) > maxAge {
						t.Errorf("a write began %v after the last reading", r.clock.Sub(read))
					}
				}
				return nil
			}
			r.paper.after = func(method string) *mishap {
				read = r.clock
				if strings.HasSuffix(method, "batchGet") {
					if reads++; reads == 1 {
						w.client.writes.AllowN(r.clock, w.client.writes.Burst()) // so that the write waits, and time passes
						sleep := w.client.sleep
						w.client.sleep = func(ctx context.Context, d time.Duration) error {
							r.clock = r.clock.Add(time.Hour)
							w.client.sleep = sleep
							return sleep(ctx, d)
						}
					}
				}
				return nil
			}
			l := lead(2)
			l.Status = contracts.LeadClient
			r.put(t, map[string]any{contracts.KeyLead(l.ID): l})
			for _, err := range w.Handle(t.Context(), r.changes(t)) {
				if err != nil && outcome.Of(err).Kind != outcome.KindTemporary {
					t.Error(err)
				}
			}
			r.newest = 0 // redelivered
			r.handle(t, w)
			r.mustMatch(t)
			if reads < 2 || writes == 0 {
				t.Errorf("%d reads and %d writes", reads, writes)
			}
		})
	}
}

// dial serves the stand-in over HTTP, and makes a writer with a credentials file, as in
// production.
func dial(tb testing.TB, r *rig, opt google.Options) (*google.Server, *Writer) {
	tb.Helper()
	s, err := google.New(opt)
	if err != nil {
		tb.Fatal(err)
	}
	web := httptest.NewServer(s)
	tb.Cleanup(web.Close)
	data, err := s.CredentialsJSON(web.URL)
	if err != nil {
		tb.Fatal(err)
	}
	file := filepath.Join(tb.TempDir(), "account.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		tb.Fatal(err)
	}
	w, err := New(context.Background(), Options{SpreadsheetID: "sheet1", CredentialsFile: file, URL: web.URL, Store: r.store, Keys: r.keys, Read: r.read,
		Registerer: prometheus.NewRegistry()})
	if err != nil {
		tb.Fatal(err)
	}
	return s, w
}

func TestServiceAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put(t, leads(0, 3))
	s, w := dial(t, r, google.Options{Spreadsheets: []string{"sheet1"}})
	r.handle(t, w)
	if rows := s.Rows("Leads"); len(rows) != 4 || rows[3][2] != lead(2).Name {
		t.Errorf("rows: %v", rows)
	}
	s.RevokeTokens()
	r.put(t, leads(3, 4))
	for _, err := range w.Handle(t.Context(), r.changes(t)) {
		if o := outcome.Of(err); o.Kind != outcome.KindBlocked || o.Reason != outcome.Auth {
			t.Errorf("with a revoked token: %v", err)
		}
	}
}

func TestRefusedAccountIsBlocked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opt    google.Options
		reason outcome.Reason
	}{
		"not shared":          {google.Options{Spreadsheets: []string{"other"}, NotShared: []string{"sheet1"}}, outcome.Auth},
		"no such spreadsheet": {google.Options{Spreadsheets: []string{"other"}}, outcome.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.put(t, leads(0, 2))
			s, w := dial(t, r, c.opt)
			for _, err := range w.Handle(t.Context(), r.changes(t)) {
				if o := outcome.Of(err); o.Kind != outcome.KindBlocked || o.Reason != c.reason {
					t.Errorf("got %v", err)
				}
			}
			if n := len(s.Calls()); n != 1 {
				t.Errorf("%d calls for a refusal", n)
			}
		})
	}
}

func TestNoTokenIsBlockedOnlyWhenRefused(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]outcome.Kind{400: outcome.KindBlocked, 401: outcome.KindBlocked, 429: outcome.KindTemporary, 503: outcome.KindTemporary} {
		err := classify("a call", &url.Error{Op: "Get", URL: "https://sheets.example.com", Err: &auth.Error{
			Response: &http.Response{StatusCode: status}, Body: []byte(`{"error":"invalid_grant"}`)}}, time.Time{})
		if got := outcome.Of(err).Kind; got != want {
			t.Errorf("token endpoint answers %d: %s, want %s", status, got, want)
		}
	}
}

// BenchmarkTenThousandLeads measures rows a minute under Google's real quota, by the
// real clock, against a stand-in that takes 200 ms a call.
func BenchmarkTenThousandLeads(b *testing.B) {
	const n = 10_000
	for b.Loop() {
		b.StopTimer()
		r := newRig(b)
		s, w := dial(b, r, google.Options{Spreadsheets: []string{"sheet1"}, MinLatency: 200 * time.Millisecond, MaxLatency: 200 * time.Millisecond})
		r.put(b, leads(0, n))
		b.StartTimer()
		for part := range slices.Chunk(r.changes(b), 3000) {
			for _, err := range w.Handle(b.Context(), part) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		b.StopTimer()
		if got := len(s.Rows("Leads")); got != n+1 || s.Stats().QuotaViolations > 0 {
			b.Fatalf("%d rows, %d calls beyond the quota", got, s.Stats().QuotaViolations)
		}
		b.StartTimer()
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Minutes(), "rows/min")
}

// Who never paid and has no trial is no client: a row begins with the first of either,
// and goes when it turns out that there was none.
func TestARowBeginsWithTheFirstPayment(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	ids := func() (ids []string) {
		for _, row := range r.paper.page(t, "Clients").table() {
			if id := row["customer_id"]; id != "" {
				ids = append(ids, id)
			}
		}
		return ids
	}
	step := func(c contracts.Customer, subs ...contracts.Subscription) {
		t.Helper()
		c.ID, c.Name, c.Subscriptions = "cus_1", "Léa", []string{"sub_1"}
		records := map[string]any{"customer.cus_1": c}
		for _, s := range subs {
			records["subscription.sub_1"] = s
		}
		r.put(t, records)
		r.handle(t, w)
	}
	step(contracts.Customer{})
	if got := ids(); len(got) != 0 {
		t.Errorf("one who never paid: %q", got)
	}
	step(contracts.Customer{Status: contracts.CustomerClient, Since: born}, contracts.Subscription{ID: "sub_1", CustomerID: "cus_1", Status: "active", RanAt: born})
	if got := ids(); len(got) != 1 {
		t.Errorf("one whose subscription runs: %q", got)
	}
	step(contracts.Customer{})
	if got := ids(); len(got) != 0 {
		t.Errorf("its first invoice was voided: %q", got)
	}
	r.mustMatch(t)
}

// A change is done when its own row is in the sheet, however many others are missing: they
// are an audit's work, slice by slice, and end whatever comes meanwhile.
func TestAChangeWaitsForNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.fill(t, 0, sliceRows+100)
	msgs := r.changes(t)
	for _, err := range w.Handle(t.Context(), msgs[len(msgs)-1:]) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if rows := r.paper.page(t, "Leads").table(); len(rows) != 1 || rows[0]["name"] == "" {
		t.Errorf("%d rows", len(rows))
	}
	a, n := &audit{}, sliceRows+100
	for done := false; !done; n++ {
		if n > sliceRows+150 {
			t.Fatal("the audit does not end while leads come")
		}
		var err error
		if done, err = w.slice(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		r.put(t, leads(n, n+1)) // between two slices
		r.clock = r.clock.Add(10 * time.Second)
		r.handle(t, w)
	}
	r.mustMatch(t)
}

// What a change says of a row stays said while an audit is writing that row: between the
// audit's looks, changes go on, and the audit may have read the record before them.
func TestAChangeOvertakesAnAudit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.fill(t, 0, sliceRows+100)
	msgs := r.changes(t)
	if err := w.Handle(t.Context(), msgs[:1])[0]; err != nil {
		t.Fatal(err)
	}
	said := map[string]string{} // names, by lead
	a, between := &audit{}, 0
	for done, look := false, 0; !done; look++ {
		var err error
		if done, err = w.slice(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		for _, row := range r.paper.page(t, "Leads").table() {
			if want := said[row["id"]]; want != "" && row["name"] != want {
				t.Fatalf("after look %d a row shows %q, and its change said %q", look, row["name"], want)
			}
		}
		if w.repair == nil {
			continue
		}
		between++
		l := lead(30 + look)
		l.Name = fmt.Sprint("renamed ", look)
		said[l.ID] = l.Name
		r.put(t, map[string]any{contracts.KeyLead(l.ID): l})
		r.clock = r.clock.Add(10 * time.Second)
		r.handle(t, w)
	}
	if between < 2 {
		t.Errorf("%d changes came while rows were being written", between)
	}
	r.mustMatch(t)
}

// Where quota is short, Wait says how long it takes until a few new rows can be written at
// once, and a Handle then waits for nothing.
func TestWaitIsForQuota(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	if wait := w.Wait(); wait != 0 {
		t.Errorf("a new writer waits %v", wait)
	}
	waited := time.Duration(0)
	sleep := w.client.sleep
	w.client.sleep = func(ctx context.Context, d time.Duration) error {
		waited += max(0, d)
		return sleep(ctx, d)
	}
	short := 0
	for n := range 40 {
		if wait := w.Wait(); wait > 0 {
			short++
			r.clock = r.clock.Add(wait)
		}
		waited = 0
		r.put(t, leads(n, n+1))
		r.handle(t, w)
		if n > 2 && waited > 0 { // the first ones make the tabs
			t.Errorf("after Wait, the %dth lead waited %v", n+1, waited)
		}
	}
	if short < 10 {
		t.Errorf("quota was short %d times only", short)
	}
}
