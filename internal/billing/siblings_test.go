package billing

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"leadpipe/contracts"
)

// Money that goes back, and what is planned for later, change nothing of what a customer
// has now: a refund or a credit note leaves the invoice paid and the subscription as it
// is, and a schedule's phases show in the subscription itself when they begin.
// https://docs.stripe.com/refunds, https://docs.stripe.com/invoicing/integration/programmatic-credit-notes
// https://docs.stripe.com/billing/subscriptions/subscription-schedules
func TestRefundsCreditNotesAndSchedules(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(ev("a", "customer.subscription.created", 0, snapshot("active")), ev("b", "invoice.paid", 1, bill("in_1", 0, 1)))
	read := func() []map[string]any {
		return []map[string]any{get[map[string]any](d, "customer.cus_1"), get[map[string]any](d, "subscription.sub_1")}
	}
	before := read()
	for id, e := range map[string][2]string{
		"c": {"charge.refunded", `{"id":"ch_1","object":"charge","customer":"cus_1","invoice":"in_1","amount":2900,"amount_refunded":2900,"refunded":true,"status":"succeeded"}`},
		"d": {"refund.created", `{"id":"re_1","object":"refund","amount":2900,"charge":"ch_1","status":"succeeded"}`},
		"e": {"credit_note.created", `{"id":"cn_1","object":"credit_note","customer":"cus_1","invoice":"in_1","amount":2900,"status":"issued","type":"post_payment"}`},
		"f": {"subscription_schedule.created", `{"id":"sub_sched_1","object":"subscription_schedule","customer":"cus_1","subscription":"sub_1","status":"active"}`},
		"g": {"subscription_schedule.canceled", `{"id":"sub_sched_1","object":"subscription_schedule","customer":"cus_1","subscription":"sub_1","status":"canceled"}`},
	} {
		d.handle(ev(id, e[0], 2, e[1]))
		if diff := cmp.Diff(before, read()); diff != "" {
			t.Errorf("%s (-before +after):\n%s", e[0], diff)
		}
	}
	d.want("customer.cus_1", "access", "active")
}

// A trial without a way to pay, when it is over: with missing_payment_method=pause it is
// paused, and runs again when it is resumed; with cancel it ends. A trial that will end in
// three days still runs.
// https://docs.stripe.com/billing/subscriptions/trials/free-trials#create-free-trials-without-payment
func TestATrialWithoutAPaymentMethod(t *testing.T) {
	d := newDesk(t, nil)
	step := func(id, eventType string, second int64, status, access, customer string, more ...string) {
		t.Helper()
		d.handle(ev(id, eventType, second, snapshot(status, more...)))
		d.want("subscription.sub_1", "status", status)
		d.want("subscription.sub_1", "access", access)
		d.want("customer.cus_1", "status", customer)
		d.want("customer.cus_1", "access", access)
	}
	step("a", "customer.subscription.created", 0, "trialing", "active", "client")
	step("b", "customer.subscription.trial_will_end", 10, "trialing", "active", "client")
	step("c", "customer.subscription.paused", 20, "paused", "suspended", "suspended")
	step("d", "customer.subscription.resumed", 30, "active", "active", "client")
	step("e", "customer.subscription.deleted", 40, "canceled", "stopped", "churned", `"cancellation_details":{"reason":"cancellation_requested"}`)
	if c := get[contracts.Churn](d, "churn.sub_1"); c.Reason != "cancellation_requested" || !c.EndedAt.Equal(at(40)) {
		t.Errorf("%+v", c)
	}
}

// A customer may have subscriptions in several currencies; each says its own amount, and
// none is added to another's.
// https://docs.stripe.com/billing/customer#currency
func TestSeveralCurrencies(t *testing.T) {
	d := newDesk(t, nil)
	usd := []byte(snapshot("active"))
	for from, to := range map[string]string{`sub_1`: `sub_2`, `"eur"`: `"usd"`, `2900`: `3100`} {
		usd = []byte(strings.ReplaceAll(string(usd), from, to))
	}
	d.handle(ev("a", "customer.subscription.created", 0, snapshot("active")), ev("b", "customer.subscription.created", 1, string(usd)))
	for id, want := range map[string][2]any{"sub_1": {2900.0, "eur"}, "sub_2": {3100.0, "usd"}} {
		s := get[map[string]any](d, "subscription."+id)
		if s["amount"] != want[0] || s["currency"] != want[1] {
			t.Errorf("%s: %v %v", id, s["amount"], s["currency"])
		}
	}
	doc, _ := json.Marshal(get[contracts.Customer](d, "customer.cus_1").Subscriptions)
	if string(doc) != `["sub_1","sub_2"]` {
		t.Errorf("%s", doc)
	}
}
