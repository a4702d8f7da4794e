package leads_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/internal/bus"
	"leadpipe/internal/identity"
	"leadpipe/internal/leads"
	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/state"
)

const (
	token  = "EAAtoken"
	secret = "app-secret"
	mobile = "+33639980102"
)

var morning = time.Date(2026, 11, 23, 8, 30, 0, 0, time.UTC)

// rig is a real server, Meta's stand-in behind HTTP, and the consumer between them.
type rig struct {
	*natstest.Server
	t      *testing.T
	js     jetstream.JetStream // the operator's
	store  *state.Store
	meta   *meta.Server
	leads  *leads.Leads
	handle bus.Handler

	patience, timeout time.Duration
}

func newRig(t *testing.T) *rig {
	t.Helper()
	s := natstest.New(t, natstest.LazySync)
	m, err := meta.New(meta.Options{Token: token, AppSecret: secret})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Server: s, t: t, js: s.JetStream("operator"), store: state.New(s.JetStream("consumers"), nil), meta: m}
	r.serve(m)
	return r
}

// serve makes a consumer that asks graph.
func (r *rig) serve(graph http.Handler) {
	r.t.Helper()
	ts := httptest.NewServer(graph)
	g, err := leads.NewGraph(leads.GraphOptions{URL: ts.URL + "/v26.0", Token: token, AppSecret: secret, Timeout: r.timeout})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { g.Close(); ts.Close() })
	welcome, err := leads.ParseWelcome("")
	if err != nil {
		r.t.Fatal(err)
	}
	r.leads, err = leads.New(leads.Options{Graph: g, Store: r.store, Region: "FR", SMSMaxAge: 48 * time.Hour, Welcome: welcome, Patience: r.patience})
	if err != nil {
		r.t.Fatal(err)
	}
	r.handle = bus.Fold(contracts.Leads, r.store, 8, r.leads.Prepare, r.leads.Decide)
}

// person is a lead whose form has Meta's own fields.
func person(id, name, phone, email string, at time.Time) meta.Lead {
	return meta.Lead{ID: id, PageID: "111", FormID: "222", AdID: "333", CreatedTime: at, Fields: []meta.Field{
		{Name: "full_name", Values: []string{name}}, {Name: "phone_number", Values: []string{phone}}, {Name: "email", Values: []string{email}},
	}}
}

// announce is a lead's webhook as the edge publishes it, at its first delivery.
func announce(l meta.Lead, ids meta.IDs) contracts.Message {
	var body struct {
		Entry []struct {
			Changes []struct{ Value json.RawMessage }
		}
	}
	if err := json.Unmarshal(meta.Webhook(ids, l), &body); err != nil {
		panic(err) // the stand-in writes JSON
	}
	return contracts.Message{
		Stream: contracts.StreamWebhooks, Subject: contracts.SubjectFacebookLeadgen, ID: contracts.MessageIDFacebook(l.ID),
		Header: map[string]string{}, Data: body.Entry[0].Changes[0].Value, Sequence: 1, Time: l.CreatedTime, Attempt: 1,
	}
}

// arrive puts leads into Graph and handles their announcements together.
func (r *rig) arrive(ls ...meta.Lead) {
	r.t.Helper()
	var msgs []contracts.Message
	for _, l := range ls {
		r.meta.AddLead(l)
		msgs = append(msgs, announce(l, meta.AsNumbers))
	}
	for i, err := range r.handle(context.Background(), msgs) {
		if err != nil {
			r.t.Fatalf("lead %s: %v", ls[i].ID, err)
		}
	}
}

func get[T any](r *rig, key string) (record T, ok bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ok, err := r.store.Get(ctx, key, &record)
	if err != nil {
		r.t.Fatal(err)
	}
	return record, ok
}

// contact is that of a number; empty for what is no number.
func (r *rig) contact(phone string) contracts.Contact {
	r.t.Helper()
	digits, ok := strings.CutPrefix(phone, "+")
	if !ok {
		return contracts.Contact{}
	}
	c, _ := get[contracts.Contact](r, contracts.KeyContact(digits))
	return c
}

func (r *rig) update(decide func(*state.Tx) error) {
	r.t.Helper()
	if err := r.store.Update(context.Background(), decide); err != nil {
		r.t.Fatal(err)
	}
}

// sequence is the last of the bucket's stream: it stands while nothing is written.
func (r *rig) sequence() uint64 {
	r.t.Helper()
	s, err := r.js.Stream(context.Background(), contracts.StreamCRM)
	if err != nil {
		r.t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

// bucket gives every record, each held against its schema.
func (r *rig) bucket() map[string]string {
	r.t.Helper()
	kv, err := r.js.KeyValue(context.Background(), contracts.Bucket)
	if err != nil {
		r.t.Fatal(err)
	}
	keys, err := kv.Keys(context.Background())
	if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
		r.t.Fatal(err)
	}
	all := map[string]string{}
	for _, k := range keys {
		e, err := kv.Get(context.Background(), k)
		if err != nil {
			r.t.Fatal(err)
		}
		contractstest.Record(r.t, k, e.Value())
		all[k] = string(e.Value())
	}
	return all
}

// optOut does what a STOP does: the record, the contact and its leads, in one commit.
func optOut(tx *state.Tx, digits string, at time.Time) error {
	c, _, err := state.Get[contracts.Contact](tx, contracts.KeyContact(digits))
	if err != nil {
		return err
	}
	c.Phone, c.OptedOutAt = "+"+digits, at
	for _, id := range c.Leads {
		l, _, err := state.Get[contracts.Lead](tx, contracts.KeyLead(id))
		if err != nil {
			return err
		}
		l.OptedOutAt = at
		l.Settle()
		if err := tx.Put(contracts.KeyLead(id), l); err != nil {
			return err
		}
	}
	if err := tx.Put(contracts.KeyContact(digits), c); err != nil {
		return err
	}
	return tx.Put(contracts.KeyOptOut(digits), contracts.OptOut{Phone: "+" + digits, OptedOutAt: at, Keyword: "STOP", Source: contracts.OptOutBySMS})
}

func client(id, phone, email string, status contracts.CustomerStatus) contracts.Customer {
	c := contracts.Customer{ID: id, Email: email, Phone: phone, Status: status, Access: contracts.AccessActive, Since: morning.Add(-time.Hour)}
	if phone != "" {
		c.Phones = []string{phone}
	}
	if email != "" {
		c.Emails = []string{email}
	}
	return c
}

func TestOneCommitMakesLeadContactAndWelcome(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	zoe := person("1234567890123456789", "Zoé Martin", "p:06 39 98 01 02", "Zoe@example.com", morning)
	zoe.Fields = append(zoe.Fields, meta.Field{Name: "quels_services_?", Values: []string{"a", "b"}})
	zoe.Disclaimers = []meta.Disclaimer{{CheckboxKey: "sms", IsChecked: true}}
	r.arrive(zoe)
	want := contracts.Lead{
		ID: zoe.ID, CreatedAt: morning, Name: "Zoé Martin", FirstName: "Zoé", Email: "Zoe@example.com", Phone: mobile,
		FormID: "222", PageID: "111", AdID: "333", Status: contracts.LeadNew, Disclaimers: map[string]bool{"sms": true},
		Answers: map[string][]string{"full_name": {"Zoé Martin"}, "phone_number": {"p:06 39 98 01 02"}, "email": {"Zoe@example.com"}, "quels_services_?": {"a", "b"}},
	}
	lead, _ := get[contracts.Lead](r, contracts.KeyLead(zoe.ID))
	if diff := cmp.Diff(want, lead); diff != "" {
		t.Errorf("lead (-want +got):\n%s", diff)
	}
	contact := r.contact(mobile)
	if diff := cmp.Diff(contracts.Contact{Phone: mobile, Leads: []string{zoe.ID}, Customers: []string{}, Welcomes: []contracts.Welcome{{LeadID: zoe.ID, At: morning}}}, contact); diff != "" {
		t.Errorf("contact (-want +got):\n%s", diff)
	}
	sms, _ := get[contracts.SMS](r, "sms.welcome."+zoe.ID)
	if diff := cmp.Diff(contracts.SMS{
		Kind: contracts.SMSWelcome, To: mobile, Status: contracts.SMSQueued, QueuedAt: morning, ExpiresAt: morning.Add(48 * time.Hour), Cause: zoe.ID, LeadID: zoe.ID,
		Body: "Bonjour Zoé, merci pour votre demande ! Nous vous recontactons très vite. Répondez STOP pour ne plus recevoir de SMS.",
	}, sms); diff != "" {
		t.Errorf("sms (-want +got):\n%s", diff)
	}
	all := r.bucket()
	if len(all) != 4 { // with the e-mail's index
		t.Errorf("records %v", slices.Sorted(maps.Keys(all)))
	}
	stream, err := r.js.Stream(t.Context(), contracts.StreamCRM)
	if err != nil {
		t.Fatal(err)
	}
	batches := map[string]bool{}
	for key := range all {
		m, err := stream.GetLastMsgForSubject(t.Context(), contracts.SubjectOfKey(key))
		if err != nil {
			t.Fatal(err)
		}
		batches[m.Header.Get("Nats-Batch-Id")] = true
	}
	if len(batches) != 1 || batches[""] {
		t.Errorf("not one atomic batch: %v", batches)
	}
}

// TestWhoGetsAWelcome: each case is one lead, 1, that comes to a bucket in some state.
func TestWhoGetsAWelcome(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	set := func(c contracts.Customer) func(*state.Tx) error {
		return func(tx *state.Tx) error { return identity.SetCustomer(tx, c) }
	}
	put := func(key string, record any) func(*state.Tx) error {
		return func(tx *state.Tx) error { return tx.Put(key, record) }
	}
	welcomed := func(number string, at time.Time) func(*state.Tx) error {
		return put(contracts.KeyContact(number[1:]), contracts.Contact{Phone: number, Leads: []string{"9"}, Customers: []string{}, Welcomes: []contracts.Welcome{{LeadID: "9", At: at}}})
	}
	unborn := client("cus_unborn", "+33639980211", "", "")
	unborn.Since = time.Time{}
	for i, c := range []struct {
		rule   string
		typed  string
		email  string
		before func(*state.Tx) error
		status contracts.LeadStatus
		issue  string
		sent   bool
	}{
		{"nobody knows the number", "+33639980201", "", nil, contracts.LeadNew, "", true},
		{"the number has opted out", "+33639980202", "", func(tx *state.Tx) error { return optOut(tx, "33639980202", morning.Add(-time.Hour)) }, contracts.LeadOptedOut, "", false},
		{"the operator's record alone is an opt-out", "+33639980203", "", put("optout.33639980203", map[string]string{"phone": "+33639980203"}), contracts.LeadOptedOut, "", false},
		{"a client by phone", "+33639980204", "", set(client("cus_phone", "+33639980204", "", contracts.CustomerPastDue)), contracts.LeadClient, "", false},
		{"a client by e-mail", "+33639980205", "A@example.com", set(client("cus_mail", "", "a@example.com", contracts.CustomerClient)), contracts.LeadClient, "", false},
		{"a client that left comes back", "+33639980206", "", set(client("cus_gone", "+33639980206", "", contracts.CustomerChurned)), contracts.LeadChurned, "", true},
		{"a customer that never paid is no client", "+33639980211", "", set(unborn), contracts.LeadNew, "", true},
		{"welcomed a day ago", "+33639980207", "", welcomed("+33639980207", morning.Add(-24*time.Hour)), contracts.LeadNew, "", false},
		{"welcomed more than a day ago", "+33639980208", "", welcomed("+33639980208", morning.Add(-24*time.Hour-time.Second)), contracts.LeadNew, "", true},
		{"a later form was welcomed first", "+33639980209", "", welcomed("+33639980209", morning.Add(23*time.Hour)), contracts.LeadNew, "", false},
		{"a landline", "01 99 00 01 02", "", nil, contracts.LeadNew, "not_mobile", false},
		{"junk", "call me", "", nil, contracts.LeadNew, "unreadable", false},
		{"no number", "", "", nil, contracts.LeadNew, "missing", false},
		{"possible, not in the tables", "07 00 12 34 56", "", nil, contracts.LeadNew, "", true},
		{"its text went out, its record was deleted", "+33639980210", "", put("sms.welcome.114", contracts.SMS{Kind: contracts.SMSWelcome, Status: contracts.SMSSent, To: mobile}), contracts.LeadNew, "", true},
	} {
		id := strconv.Itoa(100 + i)
		t.Run(c.rule, func(t *testing.T) {
			if c.before != nil {
				r.update(c.before)
			}
			kept, hadText := get[contracts.SMS](r, "sms.welcome."+id)
			r.arrive(person(id, "Zoé Martin", c.typed, c.email, morning))
			lead, ok := get[contracts.Lead](r, "lead."+id)
			if !ok || lead.Status != c.status || lead.PhoneIssue != c.issue || c.issue != "" && lead.Phone != c.typed {
				t.Errorf("%+v", lead)
			}
			if (lead.Status == contracts.LeadOptedOut) == lead.OptedOutAt.IsZero() {
				t.Errorf("opted out at %v", lead.OptedOutAt)
			}
			sms, ok := get[contracts.SMS](r, "sms.welcome."+id)
			contact := r.contact(lead.Phone)
			counted := slices.ContainsFunc(contact.Welcomes, func(w contracts.Welcome) bool { return w.LeadID == id })
			if ok != c.sent || counted != (ok && !hadText) || ok && !hadText && sms.To != lead.Phone {
				t.Errorf("text %v %+v, counted %v", ok, sms, counted)
			}
			if hadText && cmp.Diff(kept, sms) != "" {
				t.Errorf("the text was changed: %s", cmp.Diff(kept, sms))
			}
		})
	}
}

func TestSecondFormWithinADay(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][]int{"in order": {0, 1, 2}, "backwards": {2, 1, 0}, "the middle first": {1, 0, 2}} {
		for _, together := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, together %v", name, together), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				forms := []meta.Lead{
					person("1", "Zoé", mobile, "", morning),
					person("2", "Zoé", "06 39 98 01 02", "", morning.Add(10*time.Minute)),
					person("3", "Zoé", "0033639980102", "", morning.Add(23*time.Hour)),
				}
				var sorted []meta.Lead
				for _, i := range order {
					sorted = append(sorted, forms[i])
				}
				if together {
					r.arrive(sorted...)
				} else {
					for _, l := range sorted {
						r.arrive(l)
					}
				}
				all := r.bucket()
				texts := 0
				for _, l := range forms {
					if all["lead."+l.ID] == "" {
						t.Errorf("lead %s is missing", l.ID)
					}
					if all["sms.welcome."+l.ID] != "" {
						texts++
					}
				}
				contact := r.contact(mobile)
				if texts != 1 || len(contact.Welcomes) != 1 || !slices.Equal(contact.Leads, []string{"1", "2", "3"}) {
					t.Errorf("%d texts, contact %+v", texts, contact)
				}
			})
		}
	}
}

// TestReplayWritesNothing: neither a second delivery nor a whole replay changes the
// bucket, or even asks Graph, whatever has become of the leads meanwhile.
func TestReplayWritesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var all []meta.Lead
	var msgs []contracts.Message
	for i := range 30 {
		l := person(strconv.Itoa(1000+i), "Zoé Martin", fmt.Sprintf("+336399801%02d", i%20), "a@example.com", morning.Add(time.Duration(i)*time.Hour))
		all = append(all, l)
		msgs = append(msgs, announce(l, meta.AsStrings), announce(l, meta.AsNumbers)) // each twice at once
		r.meta.AddLead(l)
	}
	for _, err := range r.handle(t.Context(), msgs) {
		if err != nil {
			t.Fatal(err)
		}
	}
	r.update(func(tx *state.Tx) error { return optOut(tx, "33639980103", morning.Add(time.Hour)) })
	r.update(func(tx *state.Tx) error {
		l, _, err := state.Get[contracts.Lead](tx, "lead.1005")
		if err != nil {
			return err
		}
		l.ContactedAt = morning
		l.Settle()
		return tx.Put("lead.1005", l)
	})
	before, sequence, calls := r.bucket(), r.sequence(), len(r.meta.Calls())
	r.meta.SetFault(meta.TokenExpired) // nobody asks
	for range 2 {
		for i, err := range r.handle(t.Context(), msgs) {
			if err != nil {
				t.Errorf("message %d: %v", i, err)
			}
		}
		rand.Shuffle(len(msgs), func(i, j int) { msgs[i], msgs[j] = msgs[j], msgs[i] })
	}
	if now := r.sequence(); now != sequence || len(r.meta.Calls()) != calls {
		t.Errorf("the replay wrote %d messages and called Graph %d times", now-sequence, len(r.meta.Calls())-calls)
	}
	if diff := cmp.Diff(before, r.bucket()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	if len(all) != 30 || calls > 60 {
		t.Errorf("%d calls for 30 leads", calls)
	}
	// A deleted lead is read anew, with all that has been learnt of its number; its
	// text is not sent twice.
	r.meta.SetFault("")
	kv, err := r.js.KeyValue(t.Context(), contracts.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"lead.1003", "lead.1006"} {
		if err := kv.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	for i, err := range r.handle(t.Context(), msgs) {
		if err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if diff := cmp.Diff(before, r.bucket()); diff != "" {
		t.Errorf("after deleting two leads (-before +after):\n%s", diff)
	}
}

// TestGivenUpAtOnce: announcements that no lead can come of end as one incident each.
func TestGivenUpAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	broken := announce(person("1", "", "", "", morning), meta.AsStrings)
	broken.Data = []byte(`{"leadgen_id":1.5}`)
	test := announce(person("444444444444", "", "", "", morning), meta.AsNumbers)
	test.Sequence = 2
	good := person("2", "Zoé", mobile, "", morning)
	r.meta.AddLead(good)
	results := r.handle(t.Context(), []contracts.Message{broken, test, announce(good, meta.AsNumbers)})
	if outcome.Of(results[0]).Kind != outcome.KindPermanent || outcome.Of(results[1]).Kind != outcome.KindPermanent || results[2] != nil {
		t.Errorf("%v", results)
	}
	if n := len(r.meta.Calls()); n != 1 {
		t.Errorf("%d calls to Graph", n)
	}
	for seq, words := range map[int]string{1: "leadgen_id", 2: "Test button"} {
		i, _ := get[contracts.Incident](r, contracts.KeyIncident("leads-"+strconv.Itoa(seq)))
		if !strings.Contains(i.Reason, words) || !strings.Contains(i.Action, "nats consumer reset WEBHOOKS leads") {
			t.Errorf("incident %d: %+v", seq, i)
		}
	}
	if _, ok := get[contracts.Lead](r, "lead.2"); !ok {
		t.Error("the sound one was held up")
	}
}

// TestUnusualContentsArriveAsTheyAre is about bytes: nothing is cut, escaped or lost
// on the way to the bucket.
func TestUnusualContentsArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const maxTextOfACell = 50_000
	l := person("1", "=HYPERLINK(\"http://example.com\")", mobile, "", morning)
	answers := map[string][]string{
		"emoji": {strings.Repeat("👩‍🔧", 10), strings.Repeat("😀", maxTextOfACell)}, "הערות": {"שלום \u202eעולם"}, "lines": {"a\nb\r\n\tc"},
		"markup": {strings.Repeat("<&>", 10_000)}, "none": {}, "nul": {"a\x00b\u2028"}, "<script>": {"\"'`"},
	}
	for name, values := range answers {
		l.Fields = append(l.Fields, meta.Field{Name: name, Values: values})
	}
	r.arrive(l)
	lead, _ := get[contracts.Lead](r, "lead.1")
	for name, values := range answers {
		if diff := cmp.Diff(values, lead.Answers[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%.300s", name, diff)
		}
	}
	if sms, _ := get[contracts.SMS](r, "sms.welcome.1"); lead.Name != l.Fields[0].Values[0] || strings.Contains(sms.Body, "http") || !strings.HasPrefix(sms.Body, "Bonjour, merci") {
		t.Errorf("name %q, text %q", lead.Name, sms.Body)
	}
	r.bucket()
}

// TestTheFormOfSomebodyElsesNumber: a text must not carry what a stranger typed as
// the first name.
func TestTheFormOfSomebodyElsesNumber(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := person("1", "Zoé Martin", mobile, "", morning)
	l.Fields = append(l.Fields, meta.Field{Name: "first_name", Values: []string{"gagnez sur evil.com"}})
	r.arrive(l)
	lead, _ := get[contracts.Lead](r, "lead.1")
	if sms, ok := get[contracts.SMS](r, "sms.welcome.1"); !ok || strings.Contains(sms.Body, "evil") || lead.FirstName != "gagnez sur evil.com" {
		t.Errorf("%q, %q", lead.FirstName, sms.Body)
	}
}

// TestLeadTooLargeForTheBucket: one byte of an answer may take six in a record, and a
// record that the server refuses would hold up those beside it.
func TestLeadTooLargeForTheBucket(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		size := 10
		if strings.HasSuffix(req.URL.Path, "/1") {
			size = 1 << 20
		}
		fmt.Fprintf(w, `{"id":%q,"field_data":[{"name":"q","values":[%q]}]}`, path.Base(req.URL.Path), strings.Repeat("<", size))
	}))
	results := r.handle(t.Context(), []contracts.Message{announce(person("1", "", "", "", morning), meta.AsStrings), announce(person("2", "", "", "", morning), meta.AsStrings)})
	if o := outcome.Of(results[0]); o.Kind != outcome.KindPermanent || o.Reason != outcome.Malformed || results[1] != nil {
		t.Errorf("%v", results)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	// The gate of a blocked consumer opens a minute after its last try at the latest.
	for deadline := time.Now().Add(90 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 90 s for %s", what)
		}
	}
}

// TestAnyOrder draws two or three leads that share numbers and addresses, a STOP and
// a client, and lets them happen in any order, alone or folded together, with Graph down
// now and then. The leads must end alike whatever the order, and no order may cost or
// send a text too many.
func TestAnyOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var worlds atomic.Int64
	rapid.Check(t, func(rt *rapid.T) {
		world := worlds.Add(1)
		number := func(i int) string { return fmt.Sprintf("+3363998%04d", int(world)*3%10_000+i) }
		email := func(i int) string { return fmt.Sprintf("w%d-%d@example.com", world, i) }
		var ls []meta.Lead
		for i := range rapid.IntRange(2, 3).Draw(rt, "leads") {
			at := morning.Add(time.Duration(rapid.IntRange(0, 60).Draw(rt, "hour")) * time.Hour)
			phone := number(rapid.IntRange(0, 1).Draw(rt, "number"))
			if rapid.IntRange(0, 5).Draw(rt, "typed") == 0 {
				phone = "call me"
			}
			ls = append(ls, person(fmt.Sprintf("9%d%d", world, i), "Zoé Martin", phone, email(rapid.IntRange(0, 1).Draw(rt, "email")), at))
		}
		stopped := number(rapid.IntRange(0, 1).Draw(rt, "stopped"))
		stop := func() { r.update(func(tx *state.Tx) error { return optOut(tx, stopped[1:], morning.Add(time.Hour)) }) }
		customer := client(fmt.Sprintf("cus_%d", world), "", email(0), contracts.CustomerClient)
		if rapid.Bool().Draw(rt, "by phone") {
			customer = client(customer.ID, number(0), "", contracts.CustomerClient)
		}
		bill := func() { r.update(func(tx *state.Tx) error { return identity.SetCustomer(tx, customer) }) }
		hasStop, hasClient := rapid.Bool().Draw(rt, "a STOP"), rapid.Bool().Draw(rt, "a client")

		var happens []func()
		var before []string // what each of happens is
		if rapid.Bool().Draw(rt, "together") {
			happens, before = append(happens, func() { r.arrive(ls...) }), append(before, "all")
		} else {
			for _, l := range ls {
				happens, before = append(happens, func() { r.arrive(l) }), append(before, l.ID)
			}
		}
		if hasStop {
			happens, before = append(happens, stop), append(before, "stop")
		}
		if hasClient {
			happens, before = append(happens, bill), append(before, "client")
		}
		for _, l := range ls { // Graph is down at first, or at another delivery
			if rapid.Bool().Draw(rt, "down") {
				happens, before = append(happens, func() {
					r.meta.SetFaultOf(l.ID, meta.HTML503)
					_ = r.deliver(l, 1, time.Minute)
					r.meta.SetFaultOf(l.ID, "")
				}), append(before, "down")
			}
		}
		order := make([]int, len(happens))
		for i := range order {
			order[i] = i
		}
		order = rapid.Permutation(order).Draw(rt, "order")
		var happened []string
		for _, i := range order {
			happens[i]()
			happened = append(happened, before[i])
		}
		first := func(a, b string) bool { // a happened before b
			at := func(s string) int {
				if i := slices.Index(happened, s); i >= 0 {
					return i
				}
				return slices.Index(happened, "all")
			}
			return slices.Contains(happened, a) && at(a) < at(b)
		}

		welcomes := map[string][]time.Time{}
		for _, l := range ls {
			phone, mail := l.Fields[1].Values[0], l.Fields[2].Values[0]
			isClient := hasClient && (slices.Contains(customer.Phones, phone) || slices.Contains(customer.Emails, mail))
			isStopped := hasStop && phone == stopped
			want := contracts.LeadNew
			if isClient {
				want = contracts.LeadClient
			}
			if isStopped {
				want = contracts.LeadOptedOut
			}
			lead, _ := get[contracts.Lead](r, "lead."+l.ID)
			if lead.Status != want || (lead.CustomerID != "") != isClient || !lead.CreatedAt.Equal(l.CreatedTime) || lead.Phone != phone {
				rt.Fatalf("%v: lead %+v, want %s", happened, lead, want)
			}
			_, texted := get[contracts.SMS](r, "sms.welcome."+l.ID)
			contact := r.contact(phone)
			if listed := slices.ContainsFunc(contact.Welcomes, func(w contracts.Welcome) bool { return w.LeadID == l.ID && w.At.Equal(l.CreatedTime) }); listed != texted {
				rt.Fatalf("%v: lead %s: text %v, listed %v", happened, l.ID, texted, listed)
			}
			barred := phone == "call me" || isStopped && first("stop", l.ID) || isClient && first("client", l.ID)
			if barred && texted {
				rt.Fatalf("%v: lead %s should have no text", happened, l.ID)
			}
			near := slices.ContainsFunc(contact.Welcomes, func(w contracts.Welcome) bool { return l.CreatedTime.Sub(w.At).Abs() <= 24*time.Hour })
			if !barred && !near {
				rt.Fatalf("%v: lead %s and its neighbours have no text", happened, l.ID)
			}
			if texted {
				for _, other := range welcomes[phone] {
					if l.CreatedTime.Sub(other).Abs() <= 24*time.Hour {
						rt.Fatalf("%v: two texts within a day", happened)
					}
				}
				welcomes[phone] = append(welcomes[phone], l.CreatedTime)
			}
		}
		sequence := r.sequence()
		for _, again := range happens {
			again()
		}
		if now := r.sequence(); now != sequence {
			rt.Fatalf("%v: again, and %d messages were written", happened, now-sequence)
		}
	})
	r.bucket()
}
