package billing

import (
	"fmt"
	"strings"
	"testing"

	"leadpipe/contracts"
	"leadpipe/internal/identity"
	"leadpipe/internal/state"
)

// The cases below are what real accounts do. Each names the page of Stripe's
// documentation that decides it. Events are written as Stripe sends them, and records
// are read as an operator reads them.

const dayLong = 86400

// event at a second, with the fields that every event has.
func ev(id, eventType string, second int64, object string) []byte {
	return []byte(fmt.Sprintf(`{"id":"evt_%s","object":"event","type":%q,"created":%d,"livemode":true,"api_version":"2023-10-16","data":{"object":%s}}`,
		id, eventType, 1795000000+second, object))
}

// previously is an event that says what some attributes of its object were before.
func previously(attributes string, raw []byte) []byte {
	return []byte(strings.Replace(string(raw), `"data":{`, `"data":{"previous_attributes":`+attributes+`,`, 1))
}

// bill is an invoice of sub_1, created and finalized at a second.
func bill(id string, created int64, attempts int, more ...string) string {
	return fmt.Sprintf(`{"id":%q,"object":"invoice","customer":"cus_1","subscription":"sub_1","created":%d,"attempt_count":%d,"currency":"eur",
		"amount_due":2900,"amount_remaining":2900,"customer_phone":"+33639980102","status_transitions":{"finalized_at":%d}%s}`,
		id, 1795000000+created, attempts, 1795000000+created, strings.Join(append([]string{""}, more...), ","))
}

func snapshot(status string, more ...string) string {
	return fmt.Sprintf(`{"id":"sub_1","object":"subscription","customer":"cus_1","status":%q,"currency":"eur","items":{"data":[{"quantity":1,
		"price":{"id":"price_1","product":"prod_1","unit_amount":2900,"currency":"eur","recurring":{"interval":"month","interval_count":1}}}]}%s}`,
		status, strings.Join(append([]string{""}, more...), ","))
}

// field reads a field of a record as text; "<nil>" where there is none.
func (d *desk) field(key, name string) string {
	d.Helper()
	return fmt.Sprint(get[map[string]any](d, key)[name])
}

func (d *desk) want(key, name, want string) {
	d.Helper()
	if got := d.field(key, name); got != want {
		d.Errorf("%s: %s is %s, want %s", key, name, got, want)
	}
}

func (d *desk) lead(l contracts.Lead) {
	d.Helper()
	l.CreatedAt = at(0)
	if l.Phone == "" {
		l.PhoneIssue = "missing"
	}
	if err := d.store.Update(d.Context(), func(tx *state.Tx) error { return identity.SetLead(tx, l) }); err != nil {
		d.Fatal(err)
	}
}

func (d *desk) exists(key string) bool {
	d.Helper()
	var m map[string]any
	ok, err := d.store.Get(d.Context(), key, &m)
	if err != nil {
		d.Fatal(err)
	}
	return ok
}

// A subscription is active while its latest invoice is paid, whatever older one is open.
// https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
func TestCase01AnOldInvoiceThatStaysOpen(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(ev("s0", "customer.subscription.created", 0, snapshot("active")))
	for n := range 4 {
		d.handle(ev(fmt.Sprint("f", n), "invoice.payment_failed", int64(n+1)*dayLong, bill("in_old", dayLong, n+1)))
	}
	d.handle(ev("s1", "customer.subscription.updated", 5*dayLong, snapshot("past_due")))
	d.want("subscription.sub_1", "access", "suspended")
	for n := range int64(13) {
		month := 30 * (n + 1) * dayLong
		d.handle(ev(fmt.Sprint("p", n), "invoice.paid", month+5, bill(fmt.Sprint("in_", n), month, 1)))
		if n == 0 {
			d.want("subscription.sub_1", "access", "active") // the payment says so before the snapshot does
			d.handle(ev("s2", "customer.subscription.updated", month+6, snapshot("active")))
		}
		d.want("subscription.sub_1", "access", "active")
		d.want("customer.cus_1", "status", "client")
		d.want("subscription.sub_1", "failed_attempts", "0")
	}
}

// Retries may be off and subscriptions left past due, so that every month has an invoice
// that fails once.
// https://docs.stripe.com/billing/revenue-recovery/smart-retries
func TestCase01OneFailureAMonth(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(ev("s0", "customer.subscription.created", 0, snapshot("active")), ev("p0", "invoice.paid", 1, bill("in_0", 0, 1)))
	for n := range int64(3) {
		month := 30 * (n + 1) * dayLong
		d.handle(ev(fmt.Sprint("f", n), "invoice.payment_failed", month+5, bill(fmt.Sprint("in_f", n), month, 1)),
			ev(fmt.Sprint("s", n+1), "customer.subscription.updated", month+6, snapshot("past_due")))
		d.want("subscription.sub_1", "failed_attempts", fmt.Sprint(n+1))
		d.want("customer.cus_1", "access", map[bool]string{true: "suspended", false: "active"}[n == 2])
	}
	// The oldest is paid at last: what came after it still stands.
	d.handle(ev("p1", "invoice.paid", 100*dayLong, bill("in_f0", 30*dayLong, 2)))
	d.want("subscription.sub_1", "failed_attempts", "2")
	d.want("customer.cus_1", "access", "active")
	// Stripe says that all is well, say because somebody marked it so: so do we.
	d.handle(ev("s9", "customer.subscription.updated", 101*dayLong, snapshot("active")))
	d.want("subscription.sub_1", "failed_attempts", "0")
	d.want("customer.cus_1", "status", "client")
	// And what fails after that counts from one.
	d.handle(ev("f9", "invoice.payment_failed", 120*dayLong, bill("in_f9", 120*dayLong, 1)))
	d.want("subscription.sub_1", "failed_attempts", "1")
}

// An invoice's customer_phone, customer_email and customer_name are copies, made when it
// is finalized.
// https://docs.stripe.com/api/invoices/object#invoice_object-customer_phone
func TestCase02AnInvoiceSaysWhatWasTrueWhenItWasFinalized(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			d := newDesk(t, nil)
			customer := `{"id":"cus_1","object":"customer","email":"new@example.com","name":"Camille Durand","phone":"+33639980155","metadata":{}}`
			old := bill("in_old", dayLong, 0, `"customer_email":"old@example.com"`, `"customer_name":"Camille Martin"`)
			events := [][]byte{
				ev("p", "invoice.paid", dayLong, bill("in_0", 0, 1)),
				ev("c", "customer.updated", 10*dayLong, customer),
				ev("v", "invoice.voided", 20*dayLong, old),
				ev("f", "invoice.payment_failed", 30*dayLong, bill("in_open", dayLong+1, 2)),
			}
			for _, n := range order {
				d.handle(events[n])
			}
			d.want("customer.cus_1", "phone", "+33639980155")
			d.want("customer.cus_1", "email", "new@example.com")
			d.want("customer.cus_1", "name", "Camille Durand")
			if order[0] == 0 { // when the failure comes last its text goes to the new number
				d.want("sms.payment_failed.in_open.2", "to", "+33639980155")
			}
		})
	}
}

// The customer object is where phone, e-mail, name and metadata are kept.
// https://docs.stripe.com/api/events/types#event_types-customer.created
func TestCase03TheCustomerObject(t *testing.T) {
	d := newDesk(t, nil)
	d.lead(contracts.Lead{ID: "77"})
	d.lead(contracts.Lead{ID: "78", Phone: "+33639980102"})
	customer := func(id, more string) string {
		return `{"id":"` + id + `","object":"customer","email":"camille@example.com","name":"Camille",` + more + `}`
	}
	d.handle(ev("a", "customer.created", 0, customer("cus_1", `"phone":null,"metadata":{"lead_id":"77"}`)),
		ev("b", "customer.subscription.created", 1, snapshot("active")))
	d.want("lead.77", "status", "client")
	d.want("lead.77", "customer_id", "cus_1")
	d.handle(ev("c", "customer.created", 0, customer("cus_2", `"phone":"06 39 98 01 02","metadata":{}`)))
	d.want("customer.cus_2", "lead_id", "78")
	d.want("lead.78", "status", "new") // a customer that paid nothing is no client
	// The number is taken out of Stripe: no text goes to it, though its lead still has it.
	d.handle(previously(`{"phone":"+33639980102"}`, ev("d", "customer.updated", 2, customer("cus_2", `"phone":null,"metadata":{}`))))
	d.want("customer.cus_2", "phone", "")
	failed := strings.NewReplacer("cus_1", "cus_2", "sub_1", "sub_2", `"+33639980102"`, "null").Replace(bill("in_2", 3, 1))
	d.handle(ev("e", "invoice.payment_failed", 3*dayLong, failed))
	d.wantTexts()
	// Stripe cancels a customer's subscriptions when it is deleted; until it says so they run.
	// https://docs.stripe.com/api/customers/delete
	d.handle(ev("f", "customer.deleted", 9, customer("cus_1", `"phone":null,"deleted":true`)))
	d.want("customer.cus_1", "access", "active")
	d.handle(ev("g", "customer.subscription.deleted", 9, snapshot("canceled")))
	d.want("customer.cus_1", "access", "stopped")
	d.handle(ev("h", "checkout.session.completed", 20, `{"id":"cs_3","customer":"cus_3","mode":"payment","payment_status":"paid"}`))
	d.want("customer.cus_3", "access", "active")
	d.handle(ev("i", "customer.deleted", 30, customer("cus_3", `"deleted":true`)))
	d.want("customer.cus_3", "access", "stopped")
}

// Checkout makes a new customer each time unless it is told of the old one.
// https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-customer_creation
func TestCase04WhoComesBackIsAClient(t *testing.T) {
	d := newDesk(t, nil)
	d.lead(contracts.Lead{ID: "77", Phone: "+33639980102"})
	d.handle(ev("a", "customer.subscription.created", 0, snapshot("active", `"metadata":{"lead_id":"77"}`)),
		ev("b", "customer.subscription.deleted", dayLong, snapshot("canceled", `"metadata":{"lead_id":"77"}`)))
	d.want("lead.77", "status", "churned")
	d.handle(ev("c", "checkout.session.completed", 9*dayLong,
		`{"id":"cs_1","customer":"cus_2","mode":"payment","payment_status":"paid","customer_details":{"phone":"+33639980102"}}`))
	d.want("lead.77", "status", "client")
	d.want("lead.77", "customer_id", "cus_2")
}

// A SEPA debit fails days after it was sent, while a card fails before the customer's eyes.
// https://docs.stripe.com/payments/sepa-debit#timing
func TestCase05TheFirstDebitComesBack(t *testing.T) {
	d := newDesk(t, nil)
	first := func(attempts int) string { return bill("in_1", 0, attempts, `"billing_reason":"subscription_create"`) }
	d.lead(contracts.Lead{ID: "77", Phone: "+33639980102"})
	d.handle(ev("a", "customer.subscription.created", 0, snapshot("active")), ev("b", "invoice.payment_failed", 30, first(1)))
	d.wantTexts()
	d.handle(ev("c", "invoice.payment_failed", 5*dayLong, first(2)))
	d.wantTexts("in_1.2 queued")
	d.want("lead.77", "status", "client") // Stripe says that it runs
	// It never was paid: not a client, and nobody left.
	d.handle(ev("d", "invoice.voided", 9*dayLong, first(2)), ev("e", "customer.subscription.deleted", 9*dayLong, snapshot("canceled")))
	d.want("lead.77", "status", "new")
	d.want("customer.cus_1", "status", "")
	if d.exists("churn.sub_1") {
		t.Error("one who never paid has left")
	}
	if _, ok := get[map[string]any](d, "customer.cus_1")["since"]; ok {
		t.Error("one who never paid is a client since some time")
	}
	// The void came first, the snapshots later: the same.
	d2 := newDeskBeside(t)
	d2.lead(contracts.Lead{ID: "77", Phone: "+33639980102"})
	d2.handle(ev("d", "invoice.voided", 9*dayLong, first(2)), ev("e", "customer.subscription.deleted", 9*dayLong, snapshot("canceled")),
		ev("a", "customer.subscription.created", 0, snapshot("active")))
	d2.want("lead.77", "status", "new")
	d2.want("customer.cus_1", "status", "")
}

// In payment mode Checkout makes no customer unless it is asked to.
// https://docs.stripe.com/payments/checkout/guest-customers
func TestCase06AGuestPays(t *testing.T) {
	session := func(id, more string) string {
		return `{"id":"` + id + `","object":"checkout.session","customer":null,"mode":"payment","payment_status":"paid",` + more + `}`
	}
	for name, more := range map[string]string{
		"named by metadata":  `"metadata":{"leadgen_id":"77"}`,
		"named by reference": `"client_reference_id":"77"`,
		"known by phone":     `"customer_details":{"phone":"06 39 98 01 02"}`,
		"known by e-mail":    `"customer_details":{"email":"Camille@example.com"}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, nil)
			d.lead(contracts.Lead{ID: "77", Phone: "+33639980102", Email: "camille@example.com"})
			d.handle(ev("a", "checkout.session.completed", 1, session("cs_test_1", more)))
			d.want("lead.77", "status", "client")
			d.want("lead.77", "customer_id", "cs_test_1")
			d.want("customer.cs_test_1", "lead_id", "77")
			d.want("customer.cs_test_1", "access", "active")
		})
	}
	t.Run("later", func(t *testing.T) {
		d := newDesk(t, nil)
		unpaid := strings.Replace(session("cs_1", `"customer_details":{"name":"Dominique"}`), `"paid"`, `"unpaid"`, 1)
		d.handle(ev("a", "checkout.session.completed", 1, unpaid))
		if d.exists("customer.cs_1") {
			d.want("customer.cs_1", "status", "")
		}
		d.handle(ev("b", "checkout.session.async_payment_succeeded", 3*dayLong, session("cs_1", `"customer_details":{"name":"Dominique"}`)))
		d.want("customer.cs_1", "status", "client")
	})
}

// A side effect never vetoes the state that caused it.
func TestCase07ATextThatCanNotBeRendered(t *testing.T) {
	d := newDesk(t, nil)
	text, err := ParsePaymentFailed(`{{with .Name}}{{slice . 0 3}}{{end}} {{.Amount}}`)
	if err != nil {
		t.Fatal(err)
	}
	d.b.opt.PaymentFailed = text
	failed := func(id, name string, n int) []byte {
		return ev(fmt.Sprint(id, n), "invoice.payment_failed", int64(n)*dayLong, bill(id, 0, n, `"customer_name":"`+name+`"`))
	}
	d.handle(ev("s", "customer.subscription.created", 0, snapshot("active")), ev("p", "invoice.paid", 0, bill("in_0", -1, 1)))
	for n := range 3 {
		d.handle(failed("in_1", "Bo", n+1))
	}
	d.want("subscription.sub_1", "access", "suspended")
	d.wantTexts()
	d.want("incident.billing-template", "count", "3")
	if i, reason := d.incident("billing-template"); !strings.Contains(i.Reason, "SMS_PAYMENT_FAILED_TEXT") || reason != "malformed" || i.Sequence != 3 {
		t.Errorf("%s: %+v", reason, i)
	}
	for n := range 3 { // a replay
		d.handle(failed("in_1", "Bo", n+1))
	}
	d.want("incident.billing-template", "count", "3")
	d.handle(ev("x", "invoice.payment_failed", 9*dayLong, bill("in_2", 8*dayLong, 1, `"customer_name":"Camille"`)))
	d.wantTexts("in_2.1 queued")
	if d.field("incident.billing-template", "resolved_at") == "<nil>" {
		t.Error("a text was rendered, and the incident is open")
	}
}

// Flexible billing, the default of new subscriptions, tells of a cancellation in the
// portal by cancel_at.
// https://docs.stripe.com/billing/subscriptions/billing-mode
func TestCase08CancelAt(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(ev("a", "customer.subscription.updated", 1, snapshot("active", `"cancel_at_period_end":false`, `"cancel_at":1797592000`)))
	d.want("subscription.sub_1", "cancel_at_period_end", "true")
	d.want("subscription.sub_1", "cancel_at", "2026-12-18T11:06:40Z")
	d.handle(ev("b", "customer.subscription.updated", 2, snapshot("active", `"cancel_at_period_end":false`, `"cancel_at":null`)))
	d.want("subscription.sub_1", "cancel_at_period_end", "false")
	d.want("subscription.sub_1", "cancel_at", "<nil>")
}

// client_reference_id can be a customer id, a cart id, or similar.
// https://docs.stripe.com/api/checkout/sessions/object#checkout_session_object-client_reference_id
func TestCase09MetadataBeforeReference(t *testing.T) {
	session := ev("a", "checkout.session.completed", 1, `{"id":"cs_1","customer":"cus_1","mode":"payment","payment_status":"paid","client_reference_id":"77"}`)
	named := ev("b", "customer.subscription.created", 2, snapshot("active", `"metadata":{"leadgen_id":"78"}`))
	for name, events := range map[string][][]byte{"reference first": {session, named}, "metadata first": {named, session}} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, nil)
			d.lead(contracts.Lead{ID: "77"})
			d.handle(events...)
			d.want("customer.cus_1", "lead_id", "77") // 78 does not exist yet
			d.want("lead.77", "status", "client")
			d.lead(contracts.Lead{ID: "78"})
			d.want("customer.cus_1", "lead_id", "78")
			d.want("lead.78", "status", "client")
			d.want("lead.77", "status", "new")
		})
	}
	t.Run("a cart's number", func(t *testing.T) {
		d := newDesk(t, nil)
		d.lead(contracts.Lead{ID: "79", Phone: "+33639980102"})
		d.handle(ev("a", "checkout.session.completed", 1,
			`{"id":"cs_1","customer":"cus_1","mode":"payment","payment_status":"paid","client_reference_id":"cart_5","customer_details":{"phone":"+33639980102"}}`))
		d.want("customer.cus_1", "lead_id", "79")
	})
}

// An endpoint gets the event types that it lists, and no others.
// https://docs.stripe.com/webhooks#register-webhook
func TestCase10WithoutSnapshots(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(ev("p", "invoice.paid", 0, bill("in_0", 0, 1)))
	d.want("customer.cus_1", "access", "active")
	for n := range 3 {
		d.handle(ev(fmt.Sprint("f", n), "invoice.payment_failed", int64(n)*3600+3600, bill("in_1", 3600, n+1)))
	}
	d.want("subscription.sub_1", "access", "suspended")
	d.want("customer.cus_1", "access", "suspended")
	if d.exists("incident.billing-no-snapshots") {
		t.Error("told within hours")
	}
	d.handle(ev("q", "invoice.paid", 2*dayLong, bill("in_2", 2*dayLong, 1)))
	d.want("customer.cus_1", "access", "active")
	if reason := d.field("incident.billing-no-snapshots", "reason"); !strings.Contains(reason, "customer.subscription.updated") {
		t.Error(reason)
	}
	d.handle(ev("s", "customer.subscription.updated", 3*dayLong, snapshot("active")))
	if d.field("incident.billing-no-snapshots", "resolved_at") == "<nil>" {
		t.Error("snapshots come, and the incident is open")
	}
}

// https://docs.stripe.com/api/prices/object
// https://docs.stripe.com/products-prices/pricing-models
func TestCase11Amounts(t *testing.T) {
	item := func(quantity, price string) string {
		return `{"quantity":` + quantity + `,"price":{"id":"price_x","currency":"eur",` + price + `}}`
	}
	const month, year = `"recurring":{"interval":"month","interval_count":1}`, `"recurring":{"interval":"year","interval_count":1}`
	for _, tt := range []struct{ name, items, want string }{
		{"a price below a cent", item("1000", `"unit_amount":null,"unit_amount_decimal":"0.5",`+month), "500 month 1"},
		{"a decimal price, rounded once", item("3", `"unit_amount":null,"unit_amount_decimal":"33.35",`+month), "100 month 1"},
		{"by the package, rounded up", item("205", `"unit_amount":1000,"transform_quantity":{"divide_by":100,"round":"up"},`+month), "3000 month 1"},
		{"by the package, rounded down", item("205", `"unit_amount":1000,"transform_quantity":{"divide_by":100,"round":"down"},`+month), "2000 month 1"},
		{"whole packages", item("200", `"unit_amount":1000,"transform_quantity":{"divide_by":100,"round":"up"},`+month), "2000 month 1"},
		{"tiers, which the event does not show", item("5", `"unit_amount":null,"billing_scheme":"tiered","tiers_mode":"volume",`+month), "<nil> month 1"},
		{"by use", `{"price":{"id":"p","unit_amount":20,"recurring":{"interval":"month","interval_count":1,"usage_type":"metered"}}}`, "<nil> month 1"},
		{"every three months", item("1", `"unit_amount":9000,"recurring":{"interval":"month","interval_count":3}`), "9000 month 3"},
		{"a base and what is used", item("1", `"unit_amount":2900,`+month) + `,{"price":{"id":"u","unit_amount":20,"recurring":{"interval":"month","interval_count":1,"usage_type":"metered"}}}`, "<nil> month 1"},
		{"two of the same interval", item("1", `"unit_amount":2900,`+month) + "," + item("2", `"unit_amount":500,`+month), "3900 month 1"},
		{"a month and a year, not summed", item("1", `"unit_amount":2900,`+month) + "," + item("1", `"unit_amount":9900,`+year), "<nil>  <nil>"},
		{"one month and three", item("1", `"unit_amount":2900,`+month) + "," + item("1", `"unit_amount":2900,"recurring":{"interval":"month","interval_count":3}`), "<nil>  <nil>"},
		{"nothing, for free", item("1", `"unit_amount":0,`+month), "0 month 1"},
		{"tiers, with a price of nothing beside them", item("5", `"unit_amount":0,"billing_scheme":"tiered",`+month), "<nil> month 1"},
		{"what is used, and a base", `{"price":{"id":"u","unit_amount":20,"recurring":{"interval":"month","interval_count":1,"usage_type":"metered"}}},` + item("1", `"unit_amount":2900,`+month), "<nil> month 1"},
		{"packages of nothing", item("5", `"unit_amount":100,"transform_quantity":{"divide_by":0,"round":"up"},`+month), "500 month 1"},
		{"half a cent, up", item("1", `"unit_amount_decimal":"12.5",`+month), "13 month 1"},
		{"less than half a cent, down", item("1", `"unit_amount_decimal":"12.49",`+month), "12 month 1"},
		{"half a cent given back", item("1", `"unit_amount_decimal":"-12.5",`+month), "-13 month 1"},
		{"less than half a cent given back", item("1", `"unit_amount_decimal":"-12.49",`+month), "-12 month 1"},
		{"forty digits", item("1", `"unit_amount_decimal":"0.`+strings.Repeat("0", 37)+`1",`+month), "0 month 1"},
		{"the most that every reader of JSON can read", item("1", `"unit_amount":9007199254740991,`+month), "9.007199254740991e+15 month 1"},
		{"the same, given back", item("1", `"unit_amount":-9007199254740991,`+month), "-9.007199254740991e+15 month 1"},
		{"before the discount", item("1", `"unit_amount":2900,`+month) + `],"x":[`, "2900 month 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t, nil)
			d.handle(ev("a", "customer.subscription.created", 0, `{"id":"sub_1","customer":"cus_1","status":"active","currency":"eur",
				"discount":{"coupon":{"percent_off":50}},"items":{"data":[`+tt.items+`]}}`))
			got := fmt.Sprint(d.field("subscription.sub_1", "amount"), " ", d.field("subscription.sub_1", "interval"), " ", d.field("subscription.sub_1", "interval_count"))
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if several := strings.Count(tt.items, `"price"`) > 1; several != (d.field("subscription.sub_1", "items") != "<nil>") {
				t.Errorf("items: %s", d.field("subscription.sub_1", "items"))
			}
		})
	}
}

// Test and live data never mix at Stripe, and a connected account's are its own.
// https://docs.stripe.com/testing-use-cases#compare-testing-environments
// https://docs.stripe.com/connect/webhooks
func TestCase12TestAndLiveNeverMerge(t *testing.T) {
	for _, world := range []string{"test", "acct_9"} {
		t.Run(world, func(t *testing.T) {
			other := func(raw []byte) []byte {
				return said(world, []byte(strings.NewReplacer("cus_1", "cus_t", "sub_1", "sub_t", "in_", "in_t").Replace(string(raw))))
			}
			live := [][]byte{
				ev("1", "customer.subscription.created", 0, snapshot("active", `"metadata":{"lead_id":"77"}`)),
				ev("2", "invoice.paid", 1, bill("in_1", 0, 1)),
			}
			foreign := [][]byte{
				other(ev("3", "customer.subscription.created", 10, snapshot("active", `"metadata":{"lead_id":"77"}`))),
				other(ev("4", "invoice.payment_failed", 20*dayLong, bill("in_9", 20*dayLong, 1))),
				other(ev("5", "customer.subscription.deleted", 30*dayLong, snapshot("canceled", `"metadata":{"lead_id":"77"}`))),
				// A lead that no real customer has.
				other(ev("6", "checkout.session.completed", 30*dayLong, `{"id":"cs_1","customer":"cus_u","mode":"payment","payment_status":"paid","metadata":{"lead_id":"78"}}`)),
				// An id that both have, as a fixture may.
				said(world, ev("7", "customer.subscription.deleted", 31*dayLong, snapshot("canceled"))),
			}
			for name, events := range map[string][][]byte{"live first": append(append([][]byte{}, live...), foreign...), "live last": append(append([][]byte{}, foreign...), live...)} {
				t.Run(name, func(t *testing.T) {
					d := newDesk(t, nil)
					d.lead(contracts.Lead{ID: "77", Phone: "+33639980102"})
					d.lead(contracts.Lead{ID: "78"})
					d.handle(events...)
					d.want("lead.77", "status", "client")
					d.want("lead.77", "customer_id", "cus_1")
					d.want("lead.78", "status", "new")
					d.want("subscription.sub_1", "status", "active")
					d.want("customer.cus_1", "livemode", "<nil>")
					d.want("customer.cus_t", "status", "churned")
					if name == "live first" {
						d.wantTexts()
					}
					if world == "test" {
						d.want("customer.cus_t", "livemode", "false")
						d.want("subscription.sub_t", "livemode", "false")
						d.want("churn.sub_t", "livemode", "false")
					} else {
						d.want("customer.cus_t", "account", "acct_9")
					}
					d.want("incident.billing-worlds", "severity", "warning")
					d.handle(ev("9", "invoice.paid", 60*dayLong, bill("in_99", 60*dayLong, 1)))
					if d.field("incident.billing-worlds", "resolved_at") == "<nil>" {
						t.Error("only one world for a month, and the incident is open")
					}
				})
			}
		})
	}
	t.Run("tests alone", func(t *testing.T) {
		d := newDesk(t, nil)
		d.lead(contracts.Lead{ID: "77"})
		d.handle(said("test", ev("1", "customer.subscription.created", 0, snapshot("active", `"metadata":{"lead_id":"77"}`))))
		d.want("lead.77", "status", "client")
		d.handle(said("test", ev("2", "invoice.payment_failed", dayLong, bill("in_1", dayLong, 1))))
		d.wantTexts("in_1.1 queued")
		if d.exists("incident.billing-worlds") {
			t.Error("one world is no mix")
		}
	})
}

// A subscription that is deleted before its first payment never ran.
// https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
func TestDeletedBeforeItRan(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(ev("a", "customer.subscription.created", 0, snapshot("incomplete")), ev("b", "customer.subscription.deleted", 9, snapshot("incomplete")))
	d.want("subscription.sub_1", "status", "incomplete_expired")
	d.want("customer.cus_1", "status", "")
	if d.exists("churn.sub_1") {
		t.Error("one that never ran has ended")
	}
}

// An invoice that is written off is owed no more, and no payment: Stripe's status of the
// subscription stands, and its attempts don't count.
// https://docs.stripe.com/invoicing/overview#invoice-statuses
func TestUncollectibleOnAPastDueSubscription(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(ev("a", "customer.subscription.created", 0, snapshot("active")), ev("p", "invoice.paid", 1, bill("in_0", 0, 1)))
	for n := range 3 {
		d.handle(ev(fmt.Sprint("f", n), "invoice.payment_failed", int64(30+n)*dayLong, bill("in_1", 30*dayLong, n+1)))
	}
	d.handle(ev("s", "customer.subscription.updated", 33*dayLong, snapshot("past_due")))
	d.want("customer.cus_1", "status", "suspended")
	d.handle(ev("u", "invoice.marked_uncollectible", 40*dayLong, bill("in_1", 30*dayLong, 3)))
	d.want("subscription.sub_1", "failed_attempts", "0")
	d.want("customer.cus_1", "status", "past_due")
	d.want("customer.cus_1", "access", "active")
}

// A record keeps the newest 200 invoices, whatever order they come in, and a late failure
// of an older one is told to nobody.
func TestRecordsAreBounded(t *testing.T) {
	t.Parallel()
	var forwards, backwards []Event
	for n := range int64(401) {
		e, err := decode(ev(fmt.Sprint(n), "invoice.paid", n*dayLong+1, bill(fmt.Sprint("in_", n), n*dayLong, 1)))
		if err != nil {
			t.Fatal(err)
		}
		forwards, backwards = append(forwards, e), append([]Event{e}, backwards...)
	}
	a, b := replay(forwards, merging), replay(backwards, merging)
	for _, book := range []book{a, b} {
		invoices := book.subs["sub_1"].Invoices
		if len(invoices) != 200 {
			t.Errorf("%d invoices", len(invoices))
		}
		for n := 201; n <= 400; n++ {
			if _, ok := invoices[fmt.Sprint("in_", n)]; !ok {
				t.Errorf("invoice %d is gone", n)
			}
		}
	}
	again, err := decode(ev("again", "invoice.paid", 999*dayLong, bill("in_400", 400*dayLong, 1)))
	if err != nil {
		t.Fatal(err)
	}
	testRules.apply(&a, again)
	if _, ok := a.subs["sub_1"].Invoices["in_201"]; !ok {
		t.Error("an invoice had to go for one that is there already")
	}
	late, err := decode(ev("late", "invoice.payment_failed", 999*dayLong, bill("in_3", 3*dayLong, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if ch := testRules.apply(&a, late); ch.failed {
		t.Error("a failure of long ago is told")
	}
	if a.subs["sub_1"].Access != contracts.AccessActive {
		t.Error("the newest invoice is paid, and access is not on")
	}
}
