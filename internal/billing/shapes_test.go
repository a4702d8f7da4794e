package billing

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leadpipe/contracts"
	"leadpipe/internal/sandbox/stripe"
	verifier "leadpipe/internal/webhook/stripe"
)

// shapes are the events of one customer as an API version renders them, with every field
// that the objects have there. Of what has moved: the period's end into the items, an
// invoice's subscription into its parent, its payment into a list, a line's price into
// pricing, the discount into a list; in flexible billing an end is told by cancel_at.
// https://docs.stripe.com/changelog/basil
// https://docs.stripe.com/api/subscriptions/object, https://docs.stripe.com/api/invoices/object
func shapes(t *testing.T, v stripe.Version) (events [][]byte) {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("testdata", "shapes", string(v)+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []json.RawMessage
	if err := json.Unmarshal(doc, &all); err != nil {
		t.Fatal(err)
	}
	return verified(t, all)
}

// verified lets events through the edge's own verification.
func verified(t *testing.T, all []json.RawMessage) (events [][]byte) {
	t.Helper()
	const secret = "whsec_of_a_test_that_is_long_enough"
	edge, err := verifier.New([]string{secret}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		messages, err := edge.Messages(e, verifier.Sign(e, at(0), secret), at(0))
		if err != nil || len(messages) != 1 {
			t.Fatalf("%v: %s", err, e)
		}
		events = append(events, messages[0].Data)
	}
	return events
}

func TestRealShapes(t *testing.T) {
	for _, v := range stripe.Versions() {
		for _, order := range []string{"forwards", "backwards"} {
			t.Run(string(v)+" "+order, func(t *testing.T) {
				d := newDesk(t, nil)
				d.lead(contracts.Lead{ID: "1234567890123456"})
				events := shapes(t, v)
				if order == "backwards" {
					slices.Reverse(events)
				}
				d.handle(events...)
				// What a person reads in the dashboard: 2 seats at 29,50 € a month before a discount,
				// paid once, to be cancelled at the end of the month, and the second bill unpaid.
				sub := get[map[string]any](d, "subscription.sub_1MowQVLkdIwHu7ixeRlqHVzs")
				for _, internal := range []string{"snapshots", "invoices", "ran_at", "trial_at"} {
					delete(sub, internal)
				}
				if diff := cmp.Diff(map[string]any{
					"id": "sub_1MowQVLkdIwHu7ixeRlqHVzs", "customer_id": "cus_Na6dX7aXxi11N4", "status": "active", "access": "active",
					"price_id": "price_1MoBy5LkdIwHu7ixZhnattbh", "product_id": "prod_NZKdYqrwEYx6iK", "amount": 5900.0, "currency": "eur",
					"interval": "month", "interval_count": 1.0, "cancel_at_period_end": true, "cancel_at": "2026-12-18T11:06:40Z",
					"current_period_end": "2026-12-18T11:06:40Z", "canceled_at": "2026-11-23T11:06:40Z", "cancel_reason": "cancellation_requested",
					"as_of": "2026-11-23T11:06:40Z", "failed_attempts": 1.0, "next_attempt_at": "2026-12-21T11:06:40Z",
				}, sub); diff != "" {
					t.Errorf("subscription (-want +got):\n%s", diff)
				}
				for name, want := range map[string]string{"status": "past_due", "access": "active", "email": "camille@example.com", "name": "Camille Martin",
					"phone": "+33639980102", "lead_id": "1234567890123456", "since": "2026-11-18T11:06:44Z"} {
					d.want("customer.cus_Na6dX7aXxi11N4", name, want)
				}
				d.want("lead.1234567890123456", "status", "client")
				d.wantTexts("in_1MtHbELkdIwHu7ixl4OzzPMv.1 queued")
				sms := get[contracts.SMS](d, "sms.payment_failed.in_1MtHbELkdIwHu7ixl4OzzPMv.1")
				if want := "Bonjour, votre paiement de 43,96 € n'a pas abouti. Vous pouvez le régler ici : " +
					"https://invoice.stripe.com/i/acct_1/in_1MtHbELkdIwHu7ixl4OzzPMv Répondez STOP pour ne plus recevoir de SMS."; sms.Body != want || sms.To != "+33639980102" {
					t.Errorf("%s: %q", sms.To, sms.Body)
				}
			})
		}
	}
}
