package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leadpipe/contracts"
	"leadpipe/internal/state"
)

// What follows are rules that could be broken without any other test's noticing, as
// `make mutants` found. Each is held to Stripe's documentation.

// both replays events forwards and backwards and gives the subscription, which must be
// the same.
func both(t *testing.T, raw ...[]byte) (contracts.Subscription, contracts.Customer) {
	t.Helper()
	var events, reverse []Event
	for _, r := range raw {
		e := mustDecode(t, r)
		events, reverse = append(events, e), append([]Event{e}, reverse...)
	}
	a, b := replay(events, merging), replay(reverse, merging)
	x, _ := json.Marshal([]any{a.subs, a.customer})
	y, _ := json.Marshal([]any{b.subs, b.customer})
	if string(x) != string(y) {
		t.Errorf("forwards  %s\nbackwards %s", x, y)
	}
	return a.subs["sub_1"], a.customer
}

// Several events of a subscription are dated by the same second; one is created before it
// changes, and changes before it is deleted, whatever the ids of the events are.
// https://docs.stripe.com/billing/subscriptions/webhooks#events
func TestMutantLifecycle(t *testing.T) {
	t.Parallel()
	for _, ids := range [][3]string{{"a", "b", "c"}, {"c", "b", "a"}, {"b", "c", "a"}} {
		created := ev(ids[0], "customer.subscription.created", 5, snapshot("incomplete"))
		updated := ev(ids[1], "customer.subscription.updated", 5, snapshot("active"))
		deleted := ev(ids[2], "customer.subscription.deleted", 5, snapshot("canceled"))
		if s, _ := both(t, created, updated); s.Status != "active" {
			t.Errorf("%v: created and changed, and %s", ids, s.Status)
		}
		if s, _ := both(t, created, updated, deleted); s.Status != "canceled" {
			t.Errorf("%v: deleted, and %s", ids, s.Status)
		}
	}
	// What is dated after the end is a straggler: an end is final.
	s, _ := both(t, ev("a", "customer.subscription.deleted", 5, snapshot("canceled")), ev("b", "customer.subscription.updated", 9, snapshot("active")))
	if s.Status != "canceled" || s.Access != contracts.AccessStopped {
		t.Errorf("%s, %s", s.Status, s.Access)
	}
	// An end that an update tells, and the deletion that tells more.
	s, _ = both(t, ev("b", "customer.subscription.updated", 5, snapshot("canceled")),
		ev("a", "customer.subscription.deleted", 5, snapshot("canceled", `"cancellation_details":{"reason":"payment_failed"}`)))
	if s.CancelReason != "payment_failed" {
		t.Errorf("the reason is %q", s.CancelReason)
	}
}

// An end that an update tells is final too; and so is one that a former release kept with
// the status that the event showed.
// https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
func TestMutantAnEndIsFinal(t *testing.T) {
	t.Parallel()
	s, _ := both(t, ev("a", "customer.subscription.updated", 5, snapshot("canceled")), ev("b", "customer.subscription.updated", 9, snapshot("active")))
	if s.Status != "canceled" {
		t.Errorf("%s", s.Status)
	}
	former := contracts.Snapshot{Created: 5, Rank: rankDeleted, State: contracts.SubscriptionState{Status: "active"}}
	if compare(former, contracts.Snapshot{Created: 9, Rank: rankUpdated, State: contracts.SubscriptionState{Status: "active"}}) <= 0 {
		t.Error("what came after the end outweighs it")
	}
}

// An update that changes nothing of what is kept follows no state, not even its own.
// https://docs.stripe.com/webhooks#event-ordering
func TestMutantAnUpdateThatChangesNothing(t *testing.T) {
	t.Parallel()
	update := func(id, before, now string) []byte {
		return previously(`{"status":"`+before+`"}`, ev(id, "customer.subscription.updated", 5, snapshot(now)))
	}
	if s, _ := both(t, update("z", "incomplete", "active"), update("b", "active", "past_due"), update("a", "past_due", "past_due")); s.Status != "past_due" {
		t.Errorf("%s", s.Status)
	}
}

// Two events of one second that show the same state leave nothing to ask Stripe.
// https://docs.stripe.com/webhooks#handle-duplicate-events
func TestMutantTheSameStateTwice(t *testing.T) {
	d := newDesk(t, reading(snapshot("past_due")))
	d.handle(ev("a", "customer.subscription.updated", 5, snapshot("active")), ev("b", "customer.subscription.updated", 5, snapshot("active")))
	d.want("subscription.sub_1", "status", "active")
}

// The event says that it is deleted, whatever status the object shows.
// https://docs.stripe.com/api/events/types#event_types-customer.subscription.deleted
func TestMutantDeletedWithAnotherStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]string{"active": "canceled", "trialing": "canceled", "past_due": "canceled", "unpaid": "canceled", "paused": "canceled",
		"canceled": "canceled", "incomplete": "incomplete_expired", "incomplete_expired": "incomplete_expired", "something_new": "canceled"} {
		s, _ := both(t, ev("a", "customer.subscription.created", 1, snapshot("incomplete")), ev("b", "customer.subscription.deleted", 9, snapshot(status)))
		if s.Status != want || s.Access != contracts.AccessStopped || !s.EndedAt.Equal(at(9)) { // ended_at is missing: the event's time
			t.Errorf("deleted as %s: %s, %s, %v", status, s.Status, s.Access, s.EndedAt)
		}
	}
	s, _ := both(t, ev("b", "customer.subscription.deleted", 9, snapshot("canceled", fmt.Sprintf(`"ended_at":%d`, at(7).Unix()))))
	if !s.EndedAt.Equal(at(7)) {
		t.Errorf("ended at %v", s.EndedAt)
	}
	if s, _ := both(t, ev("a", "customer.subscription.updated", 9, snapshot("active"))); !s.EndedAt.IsZero() {
		t.Errorf("it runs, and ended at %v", s.EndedAt)
	}
}

// A state may come back within a second: then each may be the newest, and Stripe is asked.
// https://docs.stripe.com/webhooks#event-ordering
func TestMutantAStateThatComesBack(t *testing.T) {
	there := previously(`{"status":"active"}`, ev("a", "customer.subscription.updated", 5, snapshot("past_due")))
	back := previously(`{"status":"past_due"}`, ev("b", "customer.subscription.updated", 5, snapshot("active")))
	for _, now := range []string{"active", "past_due"} {
		for name, order := range map[string][2][]byte{"forwards": {there, back}, "backwards": {back, there}} {
			t.Run(now+" "+name, func(t *testing.T) {
				d := newDesk(t, reading(snapshot(now)))
				if err := d.try(order[0]); err != nil {
					t.Fatal(err)
				}
				if err := d.try(order[1]); err == nil {
					t.Fatal("nobody was asked")
				}
				d.handle(order[1])
				d.want("subscription.sub_1", "status", now)
			})
		}
	}
}

// reading is what Stripe says when it is asked.
type reading string

func (r reading) Subscription(context.Context, string) (json.RawMessage, error) {
	return json.RawMessage(r), nil
}

// With items of different periods the subscription runs to the later end; its currency is
// that of its prices.
// https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-subscription-current-period-start-and-end
func TestMutantItems(t *testing.T) {
	t.Parallel()
	item := func(end int64, currency string) string {
		return fmt.Sprintf(`{"quantity":1,"current_period_end":%d,"price":{"id":"price_%d","product":"prod_1","unit_amount":500,"currency":%q,
			"recurring":{"interval":"month","interval_count":1}}}`, at(end).Unix(), end, currency)
	}
	for _, items := range []string{item(10, "usd") + "," + item(90, "usd"), item(90, "usd") + "," + item(10, "usd")} {
		s, _ := both(t, ev("a", "customer.subscription.updated", 1,
			fmt.Sprintf(`{"id":"sub_1","customer":"cus_1","status":"active","currency":"EUR","current_period_end":%d,"items":{"data":[%s]}}`, at(50).Unix(), items)))
		if !s.CurrentPeriodEnd.Equal(at(90)) || s.Currency != "usd" || s.Amount == nil || *s.Amount != 1000 || s.Interval != "month" || len(s.Items) != 2 {
			t.Errorf("%+v", s)
		}
		if s.PriceID != s.Items[0].PriceID || s.Items[0].Quantity != 1 || s.Items[0].ProductID != "prod_1" || s.Items[0].IntervalCount != 1 || *s.Items[0].Amount != 500 {
			t.Errorf("%+v", s)
		}
	}
	// Without items the subscription speaks for itself.
	s, _ := both(t, ev("a", "customer.subscription.updated", 1,
		fmt.Sprintf(`{"id":"sub_1","customer":"cus_1","status":"active","currency":"EUR","current_period_end":%d}`, at(50).Unix())))
	if !s.CurrentPeriodEnd.Equal(at(50)) || s.Currency != "eur" || s.Amount != nil || s.Items != nil {
		t.Errorf("%+v", s)
	}
}

// An attempt that failed is the first at least, also where nothing was attempted
// automatically and the count is 0.
// https://docs.stripe.com/api/invoices/object#invoice_object-attempt_count
func TestMutantAttemptCountZero(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1} {
		if s, _ := both(t, ev("a", "invoice.payment_failed", 1, bill("in_1", 0, n))); s.FailedAttempts != 1 {
			t.Errorf("attempt_count %d: %d failed", n, s.FailedAttempts)
		}
	}
	if s, _ := both(t, ev("a", "invoice.payment_failed", 1, bill("in_1", 0, mostAttempts))); s.FailedAttempts != mostAttempts {
		t.Errorf("%d failed", s.FailedAttempts)
	}
}

// A bill that was written off may still be paid or voided; nothing undoes a payment.
// https://docs.stripe.com/invoicing/overview#invoice-statuses
func TestMutantHowAnInvoiceIsClosed(t *testing.T) {
	t.Parallel()
	paid, void, off := "invoice.paid", "invoice.voided", "invoice.marked_uncollectible"
	for _, tt := range []struct {
		types []string
		want  string
	}{
		{[]string{paid}, "paid"}, {[]string{void}, "void"}, {[]string{off}, "uncollectible"},
		{[]string{off, void}, "void"}, {[]string{off, paid}, "paid"}, {[]string{void, paid}, "paid"}, {[]string{off, void, paid}, "paid"},
	} {
		var events [][]byte
		for i, eventType := range tt.types {
			events = append(events, ev(fmt.Sprint(i), eventType, 5, bill("in_1", 0, 1)))
		}
		s, c := both(t, append(events, ev("f", "invoice.payment_failed", 1, bill("in_1", 0, 1)))...)
		if got := s.Invoices["in_1"].Closed; got != tt.want || s.FailedAttempts != 0 {
			t.Errorf("%v: %s, %d failed", tt.types, got, s.FailedAttempts)
		}
		if paid := tt.want == "paid"; paid != (s.Access == contracts.AccessActive) || paid != (c.Status == contracts.CustomerClient) {
			t.Errorf("%v: %q, %q", tt.types, s.Access, c.Status)
		}
	}
}

// What the text says: who, how much is left, which attempt, when the next one is.
// https://docs.stripe.com/api/invoices/object#invoice_object-amount_remaining
func TestMutantWhatATextSays(t *testing.T) {
	d := newDesk(t, nil)
	text, err := ParsePaymentFailed(`{{.Company}}|{{.Name}}|{{.Amount}}|{{.URL}}|{{.Attempt}}|{{.NextAttemptAt.Format "2006-01-02"}}`)
	if err != nil {
		t.Fatal(err)
	}
	d.b.opt.PaymentFailed, d.b.opt.Company = text, "Atelier"
	d.lead(contracts.Lead{ID: "77", Phone: "+33639980102"})
	next := time.Date(2026, 12, 24, 9, 0, 0, 0, time.UTC)
	partly := strings.Replace(bill("in_1", 0, 2, `"customer_name":"Camille"`, `"hosted_invoice_url":"https://i.example.com"`,
		fmt.Sprintf(`"next_payment_attempt":%d`, next.Unix())), `"amount_remaining":2900`, `"amount_remaining":1000`, 1)
	d.handle(ev("a", "invoice.payment_failed", dayLong, partly))
	d.want("sms.payment_failed.in_1.2", "body", "Atelier|Camille|10,00 €|https://i.example.com|2|2026-12-24")
	d.want("sms.payment_failed.in_1.2", "lead_id", "77")
	d.want("subscription.sub_1", "next_attempt_at", "2026-12-24T09:00:00Z")
	// An older rendering has no amount_remaining.
	d.handle(ev("b", "invoice.payment_failed", 2*dayLong, strings.Replace(bill("in_2", 0, 1), `"amount_remaining":2900,`, "", 1)))
	if body := d.field("sms.payment_failed.in_2.1", "body"); !strings.Contains(body, "|29,00 €|") {
		t.Error(body)
	}
}

// A lead's number that can't be texted is not, however well it looks.
func TestMutantALeadsPhoneIssue(t *testing.T) {
	for issue, want := range map[string][]string{"": {"in_1.1 queued"}, "not_mobile": nil} {
		t.Run("issue "+issue, func(t *testing.T) {
			d := newDesk(t, nil)
			d.put("lead.77", contracts.Lead{ID: "77", CreatedAt: at(0), Phone: "+33639980177", PhoneIssue: issue, Status: contracts.LeadNew})
			failed := strings.Replace(bill("in_1", 0, 1, `"subscription_details":{"metadata":{"lead_id":"77"}}`), `"customer_phone":"+33639980102",`, "", 1)
			d.handle(ev("a", "invoice.payment_failed", dayLong, failed))
			d.want("customer.cus_1", "lead_id", "77")
			d.wantTexts(want...)
		})
	}
}

// Of two that failed in one second the newer invoice says when Stripe tries next, and of
// one invoice the later event.
func TestMutantTheNextAttempt(t *testing.T) {
	t.Parallel()
	next := func(s int64) string { return fmt.Sprintf(`"next_payment_attempt":%d`, at(s).Unix()) }
	s, _ := both(t, ev("a", "invoice.payment_failed", 50, bill("in_1", 9, 1, next(100))), ev("b", "invoice.payment_failed", 50, bill("in_2", 8, 1, next(200))))
	if !s.NextAttemptAt.Equal(at(100)) || s.FailedAttempts != 2 {
		t.Errorf("%v", s)
	}
	s, _ = both(t, ev("a", "invoice.payment_failed", 50, bill("in_1", 9, 1, next(200))), ev("b", "invoice.payment_failed", 51, bill("in_1", 9, 1, next(100))))
	if !s.NextAttemptAt.Equal(at(100)) || s.FailedAttempts != 1 {
		t.Errorf("%v", s)
	}
	// A failure in the same second as the snapshot that says all is well still counts.
	s, _ = both(t, ev("a", "invoice.payment_failed", 50, bill("in_1", 9, 1)), ev("b", "customer.subscription.updated", 50, snapshot("active")))
	if s.FailedAttempts != 1 {
		t.Errorf("%d failed", s.FailedAttempts)
	}
	s, _ = both(t, ev("a", "invoice.payment_failed", 50, bill("in_1", 9, 1)), ev("c", "invoice.payment_failed", 60, bill("in_1", 9, 2)),
		ev("b", "customer.subscription.updated", 51, snapshot("trialing")))
	if s.FailedAttempts != 1 {
		t.Errorf("%d failed", s.FailedAttempts)
	}
}

// Whatever an event adds to how a customer is known, its lead is looked for again, also
// when nothing else changes.
func TestMutantWhatLinksALead(t *testing.T) {
	for name, more := range map[string]string{"phone": `"phone":"06 39 98 01 02"`, "e-mail": `"email":"Camille@example.com"`, "metadata": `"metadata":{"lead_id":"77"}`} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, nil)
			d.lead(contracts.Lead{ID: "77", Phone: "+33639980102", Email: "camille@example.com"})
			d.handle(ev("a", "customer.created", 0, `{"id":"cus_1","name":"Camille"}`), ev("b", "customer.updated", 1, `{"id":"cus_1","name":"Camille",`+more+`}`))
			d.want("customer.cus_1", "lead_id", "77")
		})
	}
}

// A subscription that ended before the news came that it never was paid takes its end
// back, and its customer with it.
// https://docs.stripe.com/billing/subscriptions/overview#payment-window
func TestMutantItNeverRan(t *testing.T) {
	d := newDesk(t, nil)
	first := bill("in_1", 0, 1, `"billing_reason":"subscription_create"`)
	d.handle(ev("a", "customer.subscription.created", 0, snapshot("active")), ev("b", "customer.subscription.deleted", 5*dayLong, snapshot("canceled")))
	d.want("customer.cus_1", "status", "churned")
	if !d.exists("churn.sub_1") {
		t.Fatal("no end")
	}
	d.handle(ev("c", "invoice.voided", 6*dayLong, first))
	d.want("customer.cus_1", "status", "")
	if d.exists("churn.sub_1") {
		t.Error("one that never ran has ended")
	}
}

// A checkout session names a subscription and does not tell its state: no record is made.
// https://docs.stripe.com/api/checkout/sessions/object#checkout_session_object-subscription
func TestMutantACheckoutTellsNoState(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(ev("a", "checkout.session.completed", 0, `{"id":"cs_1","customer":"cus_1","subscription":"sub_1","mode":"subscription","payment_status":"paid"}`))
	if d.exists("subscription.sub_1") {
		t.Error("a record of a subscription whose state nobody told")
	}
	d.want("customer.cus_1", "subscriptions", "[sub_1]")
}

// Records of the former release have invoices without the time of their making.
func TestMutantInvoicesWithoutATime(t *testing.T) {
	t.Parallel()
	paid := contracts.Subscription{Invoices: map[string]contracts.Invoice{"in_1": {Closed: closedPaid}}}
	if newestPaid(paid).Closed != closedPaid {
		t.Error("a paid invoice without a time is none")
	}
	failed := contracts.Subscription{Invoices: map[string]contracts.Invoice{"in_1": {Attempts: 3, FailedAt: at(5)}}}
	if n, _ := failing(failed); n != 3 {
		t.Errorf("%d failures of an invoice without a time", n)
	}
}

// Of failures that the subscription's good standing has overtaken no next attempt is told.
// https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
func TestMutantNoNextAttemptOfOldFailures(t *testing.T) {
	t.Parallel()
	s := contracts.Subscription{Status: "active", AsOf: at(10), Invoices: map[string]contracts.Invoice{
		"in_1": {Created: at(1), Attempts: 2, FailedAt: at(5), NextAttemptAt: at(50)}}}
	if n, next := failing(s); n != 0 || !next.IsZero() {
		t.Errorf("%d failures, the next attempt at %v", n, next)
	}
}

// A subscription's first invoice is its first, however an event renders it.
// https://docs.stripe.com/api/invoices/object#invoice_object-billing_reason
func TestMutantTheFirstInvoiceStaysTheFirst(t *testing.T) {
	t.Parallel()
	s, c := both(t, ev("a", "customer.subscription.created", 0, snapshot("active")),
		ev("b", "invoice.payment_failed", 1, bill("in_1", 0, 1, `"billing_reason":"subscription_create"`)),
		ev("c", "invoice.voided", 2, bill("in_1", 0, 1, `"billing_reason":null`)))
	if !s.Invoices["in_1"].First || c.Status != "" {
		t.Errorf("%+v: the customer is %q", s.Invoices["in_1"], c.Status)
	}
}

// What is known of a customer, when several events of one second say it: the customer
// object before a copy on an invoice, then the later event's id; of leads that are named,
// the first. A deletion counts from the first time that it is told.
// https://docs.stripe.com/webhooks#event-ordering
func TestMutantWhoSaysIt(t *testing.T) {
	t.Parallel()
	_, c := both(t, ev("a", "customer.updated", 5, `{"id":"cus_1","phone":"06 39 98 01 01"}`),
		ev("b", "invoice.paid", 5, bill("in_1", 5, 1, `"customer_phone":"06 39 98 01 02"`)))
	if c.Phone != "+33639980101" {
		t.Errorf("phone %s", c.Phone)
	}
	// From the least sure to the surest; the id of each event is before those of the surer ones,
	// and then behind them.
	says := func(source int, id string) []byte {
		phone := fmt.Sprintf("+3363998010%d", source)
		switch source {
		case 0:
			return ev(id, "invoice.paid", 5, bill("in_1", 5, 1, `"customer_phone":"`+phone+`"`))
		case 1:
			return ev(id, "checkout.session.completed", 5, `{"id":"cs_1","customer":"cus_1","customer_details":{"phone":"`+phone+`"}}`)
		case 2:
			return ev(id, "customer.created", 5, `{"id":"cus_1","phone":"`+phone+`"}`)
		}
		return ev(id, "customer.updated", 5, `{"id":"cus_1","phone":"`+phone+`"}`)
	}
	for surer := 1; surer <= 3; surer++ {
		for _, ids := range [][2]string{{"a", "b"}, {"b", "a"}} {
			if _, c = both(t, says(surer-1, ids[0]), says(surer, ids[1])); c.Phone != fmt.Sprintf("+3363998010%d", surer) {
				t.Errorf("source %d beside %d, event %s: %s", surer, surer-1, ids[1], c.Phone)
			}
		}
	}
	_, c = both(t, ev("a", "customer.updated", 5, `{"id":"cus_1","metadata":{"lead_id":"99"}}`), ev("b", "customer.updated", 5, `{"id":"cus_1","metadata":{"lead_id":"11"}}`))
	if c.LeadRef != "99" || len(c.Refs) != 2 {
		t.Errorf("lead %s of %+v", c.LeadRef, c.Refs)
	}
	session := func(id, lead string) []byte {
		return ev(id, "checkout.session.completed", 5, `{"id":"cs_1","customer":"cus_1","mode":"payment","client_reference_id":"`+lead+`"}`)
	}
	if _, c = both(t, session("a", "99"), session("b", "11")); c.LeadRef != "99" {
		t.Errorf("lead %s of %+v", c.LeadRef, c.Refs)
	}
	if _, c = both(t, ev("a", "customer.deleted", 5, `{"id":"cus_1"}`), ev("b", "customer.deleted", 9, `{"id":"cus_1"}`)); !c.DeletedAt.Equal(at(5)) {
		t.Errorf("deleted at %v", c.DeletedAt)
	}
}

// A lead that the former release knew a customer by is the first of those that events name.
// One that is named in both ways counts as each.
func TestMutantRefs(t *testing.T) {
	t.Parallel()
	c := contracts.Customer{LeadRef: "55", Facts: map[string]contracts.Facted{"lead_ref": {At: at(3), Event: "evt_m"}}}
	later := contracts.LeadRef{ID: "77", Kind: refReference, At: at(5), Event: "evt_a"}
	addRef(&c, later)
	if diff := cmp.Diff([]contracts.LeadRef{{ID: "55", Kind: refReference, At: at(3), Event: "evt_m"}, later}, c.Refs); diff != "" || c.LeadRef != "55" {
		t.Errorf("%s is the lead, of (-want +got)\n%s", c.LeadRef, diff)
	}
	sure := contracts.LeadRef{ID: "77", Kind: refMetadata, At: at(9), Event: "evt_z"}
	addRef(&c, sure)
	if diff := cmp.Diff([]contracts.LeadRef{sure, {ID: "55", Kind: refReference, At: at(3), Event: "evt_m"}, later}, c.Refs); diff != "" || c.LeadRef != "77" {
		t.Errorf("%s is the lead, of (-want +got)\n%s", c.LeadRef, diff)
	}
	early := contracts.LeadRef{ID: "77", Kind: refReference, At: at(1), Event: "evt_b"}
	for _, r := range []contracts.LeadRef{early, later} { // the same once more, earlier and later
		addRef(&c, r)
	}
	if got := c.Refs[1]; len(c.Refs) != 3 || got != early {
		t.Errorf("named first at second 1: %+v", c.Refs)
	}
}

// Of a subscription whose state nobody told, nothing runs: a deleted customer's access ends.
// https://docs.stripe.com/api/customers/delete
func TestMutantDeletedWithASubscriptionNobodyTold(t *testing.T) {
	t.Parallel()
	_, c := both(t, ev("a", "checkout.session.completed", 0, `{"id":"cs_1","customer":"cus_1","subscription":"sub_1","mode":"subscription","payment_status":"paid"}`),
		ev("b", "customer.deleted", 9, `{"id":"cus_1"}`))
	if c.Status != contracts.CustomerChurned || c.Access != contracts.AccessStopped {
		t.Errorf("%s, access %s", c.Status, c.Access)
	}
}

// One who bought something, and whose subscription never was paid, has not left.
// https://docs.stripe.com/billing/subscriptions/overview#payment-window
func TestMutantABuyerWhoseSubscriptionNeverRan(t *testing.T) {
	t.Parallel()
	_, c := both(t, ev("a", "checkout.session.completed", 0, `{"id":"cs_1","customer":"cus_1","mode":"payment","payment_status":"paid"}`),
		ev("b", "customer.subscription.created", 1, snapshot("active")), ev("c", "invoice.voided", 2, bill("in_1", 1, 1, `"billing_reason":"subscription_create"`)),
		ev("d", "customer.subscription.deleted", 3, snapshot("canceled")))
	if c.Status != contracts.CustomerClient || c.Access != contracts.AccessActive {
		t.Errorf("%s, access %s", c.Status, c.Access)
	}
}

// The record of an end says all that the spreadsheet's Churn tab shows of it, and whose
// account it was.
func TestMutantAnEndSaysWhatEnded(t *testing.T) {
	d := newDesk(t, nil)
	account := func(raw []byte) []byte { return said("acct_9", raw) }
	d.handle(account(ev("a", "customer.created", 0, `{"id":"cus_1","email":"camille@example.com"}`)),
		account(ev("b", "customer.subscription.created", 1, snapshot("active"))),
		account(ev("c", "customer.subscription.deleted", 9, snapshot("canceled", `"cancellation_details":{"reason":"payment_failed"}`))))
	got := get[contracts.Churn](d, contracts.KeyChurn("sub_1"))
	amount := int64(2900)
	want := contracts.Churn{SubscriptionID: "sub_1", CustomerID: "cus_1", Email: "camille@example.com", PriceID: "price_1", Amount: &amount, Currency: "eur",
		EndedAt: at(9), Reason: "payment_failed", Account: "acct_9"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A customer's number is kept as E.164, however it was typed; what was empty before and is
// empty now was not taken away.
// https://docs.stripe.com/api/customers/object#customer_object-phone
func TestMutantNumbersAreKeptAsE164(t *testing.T) {
	t.Parallel()
	emptied := func(before string) []byte {
		return previously(`{"phone":`+before+`}`, ev("b", "customer.updated", 9, `{"id":"cus_1","phone":"","name":"Camille"}`))
	}
	for before, want := range map[string]string{`""`: "+33639980102", `null`: "+33639980102", `"06 39 98 01 02"`: ""} {
		_, c := both(t, ev("a", "customer.created", 0, `{"id":"cus_1","phone":"06 39 98 01 02"}`), emptied(before))
		if c.Phone != want {
			t.Errorf("it was %s and is empty: %q", before, c.Phone)
		}
	}
}

// To people an end is an end, whichever of its two fields tells it.
// https://docs.stripe.com/billing/subscriptions/billing-mode
func TestMutantEitherFieldTellsOfAnEnd(t *testing.T) {
	t.Parallel()
	for more, want := range map[string]bool{`"cancel_at_period_end":true`: true, `"cancel_at":1796000000`: true, `"cancel_at_period_end":false`: false} {
		if s, _ := both(t, ev("a", "customer.subscription.updated", 5, snapshot("active", more))); s.CancelAtPeriodEnd != want {
			t.Errorf("%s: %v", more, s.CancelAtPeriodEnd)
		}
	}
}

// A trial makes a client, whatever becomes of its first invoice; and of a subscription that
// is active, only the first invoice tells that it never ran.
// https://docs.stripe.com/billing/subscriptions/trials
func TestMutantSinceWhenItIsAClient(t *testing.T) {
	t.Parallel()
	first := bill("in_1", 0, 1, `"billing_reason":"subscription_create"`)
	if _, c := both(t, ev("a", "customer.subscription.created", 3, snapshot("trialing")), ev("b", "invoice.voided", 9, first)); !c.Since.Equal(at(3)) {
		t.Errorf("a trial since %v", c.Since)
	}
	if _, c := both(t, ev("a", "customer.subscription.created", 3, snapshot("active")), ev("b", "invoice.voided", 9, bill("in_2", 5, 1))); !c.Since.Equal(at(3)) {
		t.Errorf("active since %v", c.Since)
	}
}

// From an hour after the first invoice on, nobody sits before the form any more. A text that
// was sent is not sent again, though the records it belonged to were deleted.
// https://docs.stripe.com/billing/subscriptions/overview#payment-window
func TestMutantWhenAFirstFailureIsTold(t *testing.T) {
	first := bill("in_1", 0, 1, `"billing_reason":"subscription_create"`)
	for after, want := range map[int64][]string{3599: nil, 3600: {"in_1.1 queued"}} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			d := newDesk(t, nil)
			d.handle(ev("a", "customer.subscription.created", 0, snapshot("active")), ev("b", "invoice.payment_failed", after, first))
			d.wantTexts(want...)
		})
	}
	t.Run("sent before", func(t *testing.T) {
		d := newDesk(t, nil)
		d.put(contracts.KeySMS(contracts.SMSPaymentFailed, "in_1.1"), contracts.SMS{Kind: contracts.SMSPaymentFailed, To: "+33639980102", Body: "…",
			Status: contracts.SMSDelivered, QueuedAt: at(0), ExpiresAt: at(9), Cause: "in_1.1"})
		d.handle(ev("b", "invoice.payment_failed", 9*dayLong, first))
		d.wantTexts("in_1.1 delivered")
	})
}

// A payment takes back each text about its invoice that is not on its way; and a lead's
// number that can't be a mobile one gets none.
func TestMutantTexts(t *testing.T) {
	t.Run("a payment takes all back", func(t *testing.T) {
		d := newDesk(t, nil)
		d.handle(ev("a", "customer.subscription.created", 0, snapshot("active")))
		for n := range 3 {
			d.handle(ev(fmt.Sprint("f", n), "invoice.payment_failed", int64(n+30)*dayLong, bill("in_1", 30*dayLong, n+1)))
		}
		d.wantTexts("in_1.1 queued", "in_1.2 queued", "in_1.3 queued")
		d.handle(ev("p", "invoice.paid", 40*dayLong, bill("in_1", 30*dayLong, 4)))
		d.wantTexts("in_1.1 suppressed", "in_1.2 suppressed", "in_1.3 suppressed")
	})
	t.Run("a lead's landline", func(t *testing.T) {
		d := newDesk(t, nil)
		d.lead(contracts.Lead{ID: "77", Phone: "+33142278186"})
		d.handle(ev("a", "customer.created", 0, `{"id":"cus_1","metadata":{"lead_id":"77"}}`),
			ev("b", "invoice.payment_failed", 30*dayLong, strings.Replace(bill("in_1", 0, 1), "+33639980102", "", 1)))
		d.want("customer.cus_1", "lead_id", "77")
		d.wantTexts()
	})
}

// A customer's record that was deleted by hand comes again with the next event, and its
// subscription has forgotten nothing.
func TestMutantACustomerThatWasDeletedByHand(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(ev("a", "customer.subscription.created", 0, snapshot("past_due")), ev("b", "invoice.payment_failed", dayLong, bill("in_1", dayLong, 1)))
	if err := d.store.Update(d.Context(), func(tx *state.Tx) error { return tx.Delete("customer.cus_1") }); err != nil {
		t.Fatal(err)
	}
	d.handle(ev("c", "invoice.payment_failed", 2*dayLong, bill("in_2", 2*dayLong, 1)))
	d.want("subscription.sub_1", "failed_attempts", "2")
	d.want("customer.cus_1", "status", "past_due")
}
