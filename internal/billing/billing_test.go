package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/internal/identity"
	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
	"leadpipe/internal/sandbox/stripe"
	"leadpipe/internal/state"
)

// desk is billing over a real bucket.
type desk struct {
	*testing.T
	server *natstest.Server
	store  *state.Store
	b      *Billing
	n      int // event ids

	seen map[string]uint64
}

// sequence is where an event stands in the stream: the same event has one place.
func (d *desk) sequence(raw []byte) uint64 {
	if d.seen == nil {
		d.seen = map[string]uint64{}
	}
	if _, ok := d.seen[string(raw)]; !ok {
		d.seen[string(raw)] = uint64(len(d.seen) + 1)
	}
	return d.seen[string(raw)]
}

func newDesk(t *testing.T, reader Reader) *desk {
	t.Helper()
	t.Parallel()
	server := natstest.New(t, natstest.LazySync)
	return &desk{T: t, server: server, store: state.New(server.JetStream("consumers"), nil), b: newBilling(t, reader)}
}

// newDeskBeside is a second one in the same test.
func newDeskBeside(t *testing.T) *desk {
	t.Helper()
	server := natstest.New(t, natstest.LazySync)
	return &desk{T: t, server: server, store: state.New(server.JetStream("consumers"), nil), b: newBilling(t, nil)}
}

// try prepares and decides one event, as bus does.
func (d *desk) try(raw []byte) error {
	d.Helper()
	e, err := d.b.Prepare(d.Context(), contracts.Message{Data: raw, Stream: contracts.StreamWebhooks,
		Subject: contracts.SubjectStripe("test"), Sequence: d.sequence(raw)})
	if err != nil {
		return err
	}
	return d.store.Fold(d.Context(), 1, func(tx *state.Tx, _ int) error { return d.b.Decide(tx, e) }, nil)[0]
}

func (d *desk) handle(raw ...[]byte) {
	d.Helper()
	for _, r := range raw {
		if err := d.try(r); err != nil {
			d.Fatal(err)
		}
	}
}

func (d *desk) put(key string, record any) {
	d.Helper()
	if err := d.store.Update(d.Context(), func(tx *state.Tx) error { return tx.Put(key, record) }); err != nil {
		d.Fatal(err)
	}
}

func get[T any](d *desk, key string) T {
	d.Helper()
	var doc json.RawMessage
	var record T
	ok, err := d.store.Get(d.Context(), key, &doc)
	if err != nil || !ok {
		d.Fatalf("%s: %v, %v", key, ok, err)
	}
	contractstest.Record(d, key, doc)
	if err := json.Unmarshal(doc, &record); err != nil {
		d.Fatal(err)
	}
	return record
}

func (d *desk) texts() []string {
	d.Helper()
	kv, err := d.server.JetStream("operator").KeyValue(d.Context(), contracts.Bucket)
	if err != nil {
		d.Fatal(err)
	}
	keys, err := kv.ListKeysFiltered(d.Context(), "sms.>")
	if err != nil {
		d.Fatal(err)
	}
	var all []string
	for k := range keys.Keys() {
		all = append(all, strings.TrimPrefix(k, "sms.payment_failed.")+" "+string(get[contracts.SMS](d, k).Status))
	}
	slices.Sort(all)
	return all
}

func (d *desk) wantTexts(want ...string) {
	d.Helper()
	if diff := cmp.Diff(want, d.texts()); diff != "" {
		d.Errorf("texts (-want +got):\n%s", diff)
	}
}

// invoice makes an event of invoice in_1 of subscription sub_1 at second s.
func (d *desk) invoice(eventType string, s int64, change func(*stripe.Invoice)) []byte {
	d.n++
	i := stripe.Invoice{ID: "in_1", Customer: "cus_1", Email: "camille@example.com", Phone: "+33639980102", Subscription: "sub_1",
		Status: "open", Currency: "eur", AmountDue: 2900, AttemptCount: 1, HostedURL: "https://invoice.example.com/i/1"}
	if change != nil {
		change(&i)
	}
	return stripe.Event{ID: fmt.Sprintf("evt_%03d", d.n), Type: eventType, Version: stripe.Endive, Created: at(s), Object: i.Render(stripe.Endive)}.JSON()
}

func (d *desk) subscription(id string, rank string, s int64, status string, previous map[string]any) []byte {
	sub := stripe.Subscription{ID: "sub_1", Customer: "cus_1", Status: status, Price: "price_1", Amount: 2900, Currency: "eur", PeriodEnd: at(1000)}
	return stripe.Event{ID: id, Type: "customer.subscription." + rank, Version: stripe.V20231016, Created: at(s),
		Object: sub.Render(stripe.V20231016), Previous: previous}.JSON()
}

func attempt(n int) func(*stripe.Invoice) { return func(i *stripe.Invoice) { i.AttemptCount = n } }

// TestTheStoryOfTheExamples handles the examples of contracts/ forwards, then from the
// last to the first in a second bucket: the same person, the same end.
func TestTheStoryOfTheExamples(t *testing.T) {
	d := newDesk(t, nil)
	backwards := &desk{T: t, server: natstest.New(t, natstest.LazySync), b: d.b}
	backwards.store = state.New(backwards.server.JetStream("consumers"), nil)
	var events [][]byte
	for _, name := range []string{"checkout_session_completed", "subscription_created", "payment_succeeded", "subscription_updated",
		"payment_failed", "subscription_deleted"} {
		doc, err := contracts.Examples.ReadFile("stripe_" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, doc)
	}
	lead := contracts.Lead{ID: "1234567890123456", CreatedAt: at(0), Phone: "+33639980102", Email: "camille@example.com"}
	cus, sub := contracts.KeyCustomer("cus_LeadpipeDemo01"), "sub_1LpDemo00000000000000001"
	if err := d.store.Update(t.Context(), func(tx *state.Tx) error { return identity.SetLead(tx, lead) }); err != nil {
		t.Fatal(err)
	}
	var statuses []string
	for _, e := range events {
		d.handle(e)
		c := get[contracts.Customer](d, cus)
		statuses = append(statuses, fmt.Sprintf("%s %s %s", c.Status, c.Access, get[contracts.Lead](d, contracts.KeyLead(lead.ID)).Status))
	}
	if diff := cmp.Diff([]string{"client active client", "client active client", "client active client", "past_due active client",
		"past_due active client", "churned stopped churned"}, statuses); diff != "" {
		t.Error(diff)
	}
	slices.Reverse(events)
	backwards.handle(events...)
	if err := backwards.store.Update(t.Context(), func(tx *state.Tx) error { return identity.SetLead(tx, lead) }); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{cus, contracts.KeySubscription(sub), contracts.KeyChurn(sub), contracts.KeyLead(lead.ID),
		contracts.KeyContact("33639980102"), contracts.KeySMS(contracts.SMSPaymentFailed, "in_1LpDemo00000000000000002.1")} {
		forwards, back := get[map[string]any](d, key), get[map[string]any](backwards, key)
		if strings.HasPrefix(key, "sms.") { // backwards the lead is not there yet
			delete(forwards, "lead_id")
		}
		if diff := cmp.Diff(forwards, back); diff != "" {
			t.Errorf("%s (-forwards +backwards):\n%s", key, diff)
		}
	}
	churn := get[contracts.Churn](d, contracts.KeyChurn(sub))
	if churn.Reason != "cancellation_requested" || *churn.Amount != 5900 || churn.Email != "camille@example.com" {
		t.Errorf("%+v", churn)
	}
}

func TestAFailedPaymentIsToldOnce(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(d.invoice("invoice.payment_failed", 1, nil))
	d.handle(d.invoice("invoice.payment_failed", 2, nil)) // by hand: the same attempt count
	d.handle(d.invoice("invoice.payment_failed", 5, attempt(2)))
	d.wantTexts("in_1.1 queued", "in_1.2 queued")
	sms := get[contracts.SMS](d, "sms.payment_failed.in_1.1")
	want := contracts.SMS{Kind: contracts.SMSPaymentFailed, To: "+33639980102", Status: contracts.SMSQueued, QueuedAt: at(1),
		ExpiresAt: at(1).Add(48 * time.Hour), Cause: "in_1.1", Body: "Bonjour, votre paiement de 29,00 € n'a pas abouti. " +
			"Vous pouvez le régler ici : https://invoice.example.com/i/1 Répondez STOP pour ne plus recevoir de SMS."}
	if diff := cmp.Diff(want, sms); diff != "" {
		t.Error(diff)
	}
}

func TestAFailureThatIsOldNewsIsNotTold(t *testing.T) {
	for name, events := range map[string]func(*desk) [][]byte{
		"the invoice is paid": func(d *desk) [][]byte {
			return [][]byte{d.invoice("invoice.paid", 9, nil), d.invoice("invoice.payment_failed", 1, nil)}
		},
		"the invoice is void": func(d *desk) [][]byte {
			return [][]byte{d.invoice("invoice.voided", 9, nil), d.invoice("invoice.payment_failed", 1, nil)}
		},
		"the first payment of a subscription, made before the customer's eyes": func(d *desk) [][]byte {
			return [][]byte{d.invoice("invoice.payment_failed", 1, func(i *stripe.Invoice) { i.BillingReason = "subscription_create" })}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, nil)
			d.handle(events(d)...)
			d.wantTexts()
		})
	}
}

func TestAHigherFailureHidesALowerThatComesLate(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(d.invoice("invoice.payment_failed", 5, attempt(2)), d.invoice("invoice.payment_failed", 1, nil))
	d.wantTexts("in_1.2 queued")
}

func TestAPaymentTakesBackWhatIsNotSentYet(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(d.invoice("invoice.payment_failed", 1, nil), d.invoice("invoice.payment_failed", 5, attempt(2)))
	sent := get[contracts.SMS](d, "sms.payment_failed.in_1.1")
	sent.Status = contracts.SMSSent
	d.put("sms.payment_failed.in_1.1", sent)
	d.handle(d.invoice("invoice.paid", 9, nil))
	d.wantTexts("in_1.1 sent", "in_1.2 suppressed")
}

func TestWhoGetsNoText(t *testing.T) {
	phone := func(p string) func(*stripe.Invoice) { return func(i *stripe.Invoice) { i.Phone = p } }
	for _, tt := range []struct {
		name  string
		phone string
		setup func(*desk)
		want  []string
	}{
		{"a landline", "+33142000000", nil, nil},
		{"nobody's number", "", nil, nil},
		{"a number that can't be read", "call me", nil, nil},
		{"a contact that opted out", "+33639980102", func(d *desk) {
			d.put("contact.33639980102", contracts.Contact{Phone: "+33639980102", OptedOutAt: at(0)})
		}, nil},
		{"a number that an operator opted out", "+33639980102", func(d *desk) {
			d.put("optout.33639980102", contracts.OptOut{Phone: "+33639980102", OptedOutAt: at(0), Source: contracts.OptOutByOperator})
		}, nil},
		{"but one that an operator allowed again since does", "+33639980102", func(d *desk) {
			d.put("optout.33639980102", contracts.OptOut{Phone: "+33639980102", OptedOutAt: at(0), Source: contracts.OptOutBySMS})
			d.put("contact.33639980102", contracts.Contact{Phone: "+33639980102", OptedInAt: at(1)})
		}, []string{"in_1.1 queued"}},
		{"but a customer whose lead left a mobile does", "", func(d *desk) {
			d.put("lead.77", contracts.Lead{ID: "77", Phone: "+33639980177"})
			d.put(contracts.KeyEmailIndex("camille@example.com"), contracts.Index{Leads: []string{"77"}})
		}, []string{"in_1.1 queued"}},
		{"the lead's mobile does not stand in for a customer's that opted out", "+33639980102", func(d *desk) {
			d.put("contact.33639980102", contracts.Contact{Phone: "+33639980102", OptedOutAt: at(0)})
			d.put("lead.77", contracts.Lead{ID: "77", Phone: "+33639980177"})
			d.put(contracts.KeyEmailIndex("camille@example.com"), contracts.Index{Leads: []string{"77"}})
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t, nil)
			if tt.setup != nil {
				tt.setup(d)
			}
			d.handle(d.invoice("invoice.payment_failed", 5, phone(tt.phone)))
			d.wantTexts(tt.want...)
		})
	}
}

func TestDunningSuspendsAndPaymentLifts(t *testing.T) {
	d := newDesk(t, nil)
	standing := func() string {
		c := get[contracts.Customer](d, "customer.cus_1")
		s := get[contracts.Subscription](d, "subscription.sub_1")
		return fmt.Sprintf("%s %s, %d failed: %s", c.Status, c.Access, s.FailedAttempts, s.Access)
	}
	var got []string
	for _, e := range [][]byte{
		d.subscription("evt_a", "created", 0, "active", nil),
		d.invoice("invoice.payment_failed", 1, nil),
		d.invoice("invoice.payment_failed", 2, attempt(2)),
		d.invoice("invoice.payment_failed", 3, attempt(3)),
		d.invoice("invoice.payment_succeeded", 4, nil),
		d.subscription("evt_b", "updated", 5, "unpaid", nil),
		d.subscription("evt_c", "updated", 6, "active", nil),
		d.subscription("evt_d", "deleted", 7, "canceled", nil),
		d.subscription("evt_e", "updated", 8, "active", nil), // a straggler
	} {
		d.handle(e)
		got = append(got, standing())
	}
	if diff := cmp.Diff([]string{
		"client active, 0 failed: active",
		"past_due active, 1 failed: active",
		"past_due active, 2 failed: active",
		"suspended suspended, 3 failed: suspended",
		"client active, 0 failed: active",
		"suspended suspended, 0 failed: suspended",
		"client active, 0 failed: active",
		"churned stopped, 0 failed: stopped",
		"churned stopped, 0 failed: stopped",
	}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnIncompleteSubscriptionMakesNoClient(t *testing.T) {
	d := newDesk(t, nil)
	d.put("lead.77", contracts.Lead{ID: "77", CreatedAt: at(0), Phone: "+33639980177", Email: "camille@example.com", Status: contracts.LeadNew})
	d.put(contracts.KeyEmailIndex("camille@example.com"), contracts.Index{Leads: []string{"77"}})
	d.handle(d.subscription("evt_a", "created", 0, "incomplete", nil), d.invoice("invoice.payment_failed", 1, nil),
		d.subscription("evt_b", "updated", 9, "incomplete_expired", map[string]any{"status": "incomplete"}))
	c := get[contracts.Customer](d, "customer.cus_1")
	if lead := get[contracts.Lead](d, "lead.77"); c.Status != "" || c.LeadID != "77" || lead.Status != contracts.LeadNew {
		t.Errorf("customer %q of lead %q, which is %s", c.Status, c.LeadID, lead.Status)
	}
	if ok, err := d.store.Get(t.Context(), "churn.sub_1", &contracts.Churn{}); ok || err != nil {
		t.Errorf("churn of what never ran: %v, %v", ok, err)
	}
}

func TestAReplayWritesNothing(t *testing.T) {
	d := newDesk(t, nil)
	events := [][]byte{
		d.subscription("evt_a", "created", 0, "active", nil), d.invoice("invoice.payment_failed", 1, nil),
		d.invoice("invoice.payment_failed", 2, attempt(2)), d.invoice("invoice.paid", 3, nil),
		d.subscription("evt_d", "deleted", 7, "canceled", nil),
	}
	last := func() uint64 {
		s, err := d.server.JetStream("operator").Stream(t.Context(), contracts.StreamCRM)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.LastSeq
	}
	d.handle(events...)
	before := last()
	d.handle(events...)
	slices.Reverse(events)
	d.handle(events...)
	if after := last(); after != before || before == 0 {
		t.Errorf("last sequence %d, after the replays %d", before, after)
	}
}

// Of two updates of one second that do not say what was before, nothing tells which
// came last.
func tied(d *desk, t int64) [][]byte {
	return [][]byte{d.subscription("evt_1", "updated", t, "active", nil), d.subscription("evt_2", "updated", t, "past_due", nil)}
}

func TestATieIsSettledByWhatWasBefore(t *testing.T) {
	d := newDesk(t, nil)
	// The greater id came first.
	first := d.subscription("evt_9", "updated", 5, "past_due", map[string]any{"status": "trialing"})
	second := d.subscription("evt_1", "updated", 5, "active", map[string]any{"status": "past_due", "latest_invoice": "in_0"})
	for _, order := range [][][]byte{{first, second}, {second, first}} {
		d.handle(order...)
		if s := get[contracts.Subscription](d, "subscription.sub_1"); s.Status != "active" {
			t.Errorf("status %s", s.Status)
		}
	}
}

func TestATieIsSettledByTheEventIDWithoutStripe(t *testing.T) {
	d := newDesk(t, nil)
	events := tied(d, 5)
	slices.Reverse(events)
	d.handle(events...)
	if s := get[contracts.Subscription](d, "subscription.sub_1"); s.Status != "past_due" {
		t.Errorf("status %s", s.Status)
	}
}

// api is the stand-in for Stripe's API, behind the client that production has.
func api(t *testing.T) (*stripe.Server, *Stripe) {
	t.Helper()
	s, err := stripe.New(stripe.Options{Key: "sk_test_1"})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	reader, err := NewStripe("sk_test_1", web.URL)
	if err != nil {
		t.Fatal(err)
	}
	return s, reader
}

func TestATieIsSettledByStripe(t *testing.T) {
	for _, now := range []string{"active", "past_due"} {
		t.Run(now, func(t *testing.T) {
			server, reader := api(t)
			d := newDesk(t, reader)
			sub := stripe.Subscription{ID: "sub_1", Customer: "cus_1", Status: now, Price: "price_1", Amount: 2900, Currency: "eur", PeriodEnd: at(1000)}
			if err := server.Put(sub.Render(stripe.V20231016)); err != nil {
				t.Fatal(err)
			}
			events := tied(d, 5)
			d.handle(events[0])
			if err := d.try(events[1]); outcome.Of(err).Kind != outcome.KindNotYet {
				t.Fatalf("the second of a tie: %v", err)
			}
			d.handle(events[1]) // redelivered
			s := get[contracts.Subscription](d, "subscription.sub_1")
			if s.Status != now || len(server.Calls()) != 1 {
				t.Errorf("status %s after %d calls", s.Status, len(server.Calls()))
			}
			d.handle(events...) // settled: nobody asks again
			d.handle(d.invoice("invoice.paid", 6, nil))
			if again := get[contracts.Subscription](d, "subscription.sub_1"); again.Status != now || len(server.Calls()) != 1 {
				t.Errorf("status %s after %d calls", again.Status, len(server.Calls()))
			}
			d.handle(d.subscription("evt_3", "updated", 7, "unpaid", nil)) // a later second: the tie is history
			if later := get[contracts.Subscription](d, "subscription.sub_1"); later.Status != "unpaid" || later.Settled != nil {
				t.Errorf("status %s, settled %v", later.Status, later.Settled)
			}
		})
	}
}

func TestWhenStripeCanNotSettleATie(t *testing.T) {
	t.Run("not now: the event waits", func(t *testing.T) {
		server, reader := api(t)
		d := newDesk(t, reader)
		server.SetFault(stripe.RateLimited)
		events := tied(d, 5)
		d.handle(events[0])
		if err := d.try(events[1]); outcome.Of(err).Kind != outcome.KindNotYet {
			t.Fatal(err)
		}
		for range 2 {
			if o := outcome.Of(d.try(events[1])); o.Kind != outcome.KindTemporary || o.Reason != outcome.RateLimited {
				t.Errorf("%+v", o)
			}
		}
	})
	t.Run("never: the event id decides", func(t *testing.T) {
		_, reader := api(t) // which knows no subscription
		d := newDesk(t, reader)
		events := tied(d, 5)
		d.handle(events[0])
		if err := d.try(events[1]); outcome.Of(err).Kind != outcome.KindNotYet {
			t.Fatal(err)
		}
		d.handle(events[1])
		if s := get[contracts.Subscription](d, "subscription.sub_1"); s.Status != "past_due" {
			t.Errorf("status %s", s.Status)
		}
		d.handle(d.invoice("invoice.paid", 6, nil)) // which shows no state, and asks for none
	})
}

func TestWhatAStatusOfStripesMeans(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]outcome.Reason{
		0: outcome.Unavailable, 302: outcome.Unavailable, 400: "", 401: "", 402: "", 403: "", 404: "", 408: outcome.Unavailable, 409: outcome.Unavailable, 429: outcome.RateLimited,
		500: outcome.Unavailable, 502: outcome.Unavailable, 503: outcome.Unavailable, 504: outcome.Unavailable,
	} {
		err := verdict(status)
		if want == "" && err != nil || want != "" && (outcome.Of(err).Reason != want || outcome.Of(err).Kind != outcome.KindTemporary) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestNobodyAnswersForStripe(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(nil)
	web.Close()
	reader, err := NewStripe("sk_test_secret", web.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = reader.Subscription(ctx, "sub_1")
	if o := outcome.Of(err); err == nil || o.Kind != outcome.KindTemporary || strings.Contains(err.Error(), "sk_test") {
		t.Errorf("%v", err)
	}
}

func TestAccess(t *testing.T) {
	t.Parallel()
	const active, suspended, stopped = contracts.AccessActive, contracts.AccessSuspended, contracts.AccessStopped
	for _, tt := range []struct {
		status string
		failed int
		want   contracts.Access
	}{
		{"active", 0, active}, {"trialing", 0, active}, {"past_due", 2, active},
		{"active", 3, suspended}, {"past_due", 3, suspended}, {"past_due", 9, suspended},
		{"unpaid", 0, suspended}, {"paused", 0, suspended},
		{"canceled", 0, stopped}, {"canceled", 9, stopped}, {"incomplete_expired", 0, stopped}, {"incomplete", 0, stopped},
		{"", 0, ""}, {"", 3, suspended}, {"invented_later", 0, stopped},
	} {
		if got := testRules.access(contracts.Subscription{Status: tt.status, FailedAttempts: tt.failed}); got != tt.want {
			t.Errorf("%s with %d failed attempts: %q, want %q", tt.status, tt.failed, got, tt.want)
		}
	}
}

func TestACustomerIsAsItsSubscriptionsAre(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		subs []contracts.Subscription
		want string
	}{
		{"a single payment", nil, "client active"},
		{"one that nothing is known of yet", []contracts.Subscription{{}}, "client active"},
		{"the worst status of those that run, the best access", []contracts.Subscription{{Status: "active"}, {Status: "unpaid"}}, "suspended active"},
		{"past due beside active", []contracts.Subscription{{Status: "past_due"}, {Status: "active"}}, "past_due active"},
		{"a failure that Stripe has not yet told of in the status", []contracts.Subscription{{Status: "active", FailedAttempts: 1}}, "past_due active"},
		{"suspended beside past due", []contracts.Subscription{{Status: "paused"}, {Status: "past_due"}}, "suspended active"},
		{"an end beside one that runs", []contracts.Subscription{{Status: "canceled"}, {Status: "active"}}, "client active"},
		{"suspended beside an end", []contracts.Subscription{{Status: "unpaid"}, {Status: "canceled"}}, "suspended suspended"},
		{"all at their end", []contracts.Subscription{{Status: "canceled"}, {Status: "incomplete_expired"}}, "churned stopped"},
		{"one that was never paid, and a single payment", []contracts.Subscription{{Status: "incomplete_expired"}}, "client active"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, subs := contracts.Customer{PaidAt: at(0)}, map[string]contracts.Subscription{}
			for i, s := range tt.subs {
				id := fmt.Sprintf("sub_%d", i)
				s.Access = testRules.access(s)
				if ran(s.Status) {
					s.RanAt = at(0)
				}
				c.Subscriptions, subs[id] = append(c.Subscriptions, id), s
			}
			standing(&c, subs)
			if got := fmt.Sprintf("%s %s", c.Status, c.Access); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestAmount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		minor    int64
		currency string
		want     string
	}{
		{2900, "eur", "29,00 €"}, {5, "eur", "0,05 €"}, {123456789, "eur", "1 234 567,89 €"}, {-2900, "eur", "-29,00 €"},
		{2900, "usd", "29,00 $"}, {2900, "chf", "29,00 CHF"}, {2900, "jpy", "2 900 JPY"}, {2900, "tnd", "2,900 TND"}, {2900, "", "29,00"},
		{1000, "bhd", "1,000 BHD"}, {1000, "jod", "1,000 JOD"}, {1000, "kwd", "1,000 KWD"}, {1000, "omr", "1,000 OMR"}, {2900, "gbp", "29,00 £"},
		{0, "eur", "0,00 €"}, {-2950, "eur", "-29,50 €"}, {-5, "eur", "-0,05 €"}, {-12300, "eur", "-123,00 €"},
	} {
		if got := amount(tt.minor, tt.currency); got != tt.want {
			t.Errorf("%d %s: %q, want %q", tt.minor, tt.currency, got, tt.want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	failed, err := ParsePaymentFailed("")
	if err != nil {
		t.Fatal(err)
	}
	full := Options{SuspendAfter: 1, Region: "FR", SMSMaxAge: 1, PaymentFailed: failed}
	if _, err := New(full); err != nil {
		t.Error(err)
	}
	for name, without := range map[string]func(*Options){
		"all": func(o *Options) { *o = Options{} }, "threshold": func(o *Options) { o.SuspendAfter = 0 }, "region": func(o *Options) { o.Region = "" },
		"age": func(o *Options) { o.SMSMaxAge = 0 }, "text": func(o *Options) { o.PaymentFailed = nil },
	} {
		o := full
		if without(&o); o != full {
			if _, err := New(o); err == nil {
				t.Errorf("taken without %s", name)
			}
		}
	}
	if _, err := NewStripe("", ""); err == nil {
		t.Error("no key was enough")
	}
	// A template is tried out with a first failure of a customer of whom all is known, and
	// with a last one of whom nothing is.
	for _, wrong := range []string{"{{.Nonsense}}", "x{{if eq .Attempt 1}}{{.Nonsense}}{{end}}", "x{{if gt .Attempt 3}}{{.Nonsense}}{{end}}",
		"x{{if not .NextAttemptAt.IsZero}}{{.Nonsense}}{{end}}", "x{{if .NextAttemptAt.IsZero}}{{.Nonsense}}{{end}}",
		"x{{with .Name}}{{.Nonsense}}{{end}}", "x{{with .URL}}{{.Nonsense}}{{end}}", "x{{with .Company}}{{.Nonsense}}{{end}}", "{{.Name}}", "{{.URL}}", "{{.Company}}"} {
		if _, err := ParsePaymentFailed(wrong); err == nil || !strings.Contains(err.Error(), "SMS_PAYMENT_FAILED_TEXT") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	if _, err := ParsePaymentFailed("{{.Amount}}"); err != nil {
		t.Errorf("an amount is always known: %v", err)
	}
}
