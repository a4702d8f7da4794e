package contracts_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/webhook"

	"leadpipe/contracts"
)

// TestStory reads the Stripe examples as stripe-go does, signature and API version
// included, and finds one person in all of them, in the order in which it happened.
func TestStory(t *testing.T) {
	t.Parallel()
	var form struct {
		Entry []struct {
			ID      string
			Changes []struct {
				Value struct {
					LeadgenID string `json:"leadgen_id"`
					PageID    string `json:"page_id"`
					Created   int64  `json:"created_time"`
				}
			}
		}
	}
	unmarshal(t, readExample(t, "facebook_leadgen.json"), &form)
	lead := form.Entry[0].Changes[0].Value
	if lead.LeadgenID != "1234567890123456" || lead.PageID != form.Entry[0].ID {
		t.Errorf("the form's lead: %+v", lead)
	}

	var session stripe.CheckoutSession
	var created, updated, deleted stripe.Subscription
	var paid, failed stripe.Invoice
	var before struct {
		Status        string
		LatestInvoice string `json:"latest_invoice"`
		Items         struct {
			Data []struct{ Price stripe.Price }
		}
	}
	chapters := []struct {
		file, eventType string
		object          any
	}{
		{"stripe_checkout_session_completed.json", "checkout.session.completed", &session},
		{"stripe_subscription_created.json", "customer.subscription.created", &created},
		{"stripe_payment_succeeded.json", "invoice.payment_succeeded", &paid},
		{"stripe_subscription_updated.json", "customer.subscription.updated", &updated},
		{"stripe_payment_failed.json", "invoice.payment_failed", &failed},
		{"stripe_subscription_deleted.json", "customer.subscription.deleted", &deleted},
	}
	last, ids := lead.Created, map[string]bool{}
	for _, c := range chapters {
		signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: readExample(t, c.file), Secret: "whsec_x"})
		event, err := webhook.ConstructEvent(signed.Payload, signed.Header, "whsec_x")
		if err != nil {
			t.Fatalf("%s: %v", c.file, err)
		}
		unmarshal(t, event.Data.Raw, c.object)
		if string(event.Type) != c.eventType || ids[event.ID] || !contracts.ValidID(event.ID) {
			t.Errorf("%s: type %s, id %s", c.file, event.Type, event.ID)
		}
		ids[event.ID] = true
		if event.Created <= last {
			t.Errorf("%s does not come after what comes before it", c.file)
		}
		last = event.Created
		if c.object == &updated {
			old, err := json.Marshal(event.Data.PreviousAttributes)
			if err != nil {
				t.Fatal(err)
			}
			unmarshal(t, old, &before)
		}
	}
	if at := time.Unix(lead.Created, 0).UTC(); at.Year() != 2026 || at.Month() != time.November || at.Day() < 20 {
		t.Errorf("it begins on %s", at)
	}

	var text map[string]string
	unmarshal(t, readExample(t, "sms_inbound.example.json"), &text)
	if text["Body"] != "STOP" || text["SmsSid"] != text["MessageSid"] || text["SmsMessageSid"] != text["MessageSid"] {
		t.Errorf("the text: %v", text)
	}

	for _, c := range []struct {
		want string
		got  []any
	}{
		{lead.LeadgenID, []any{session.ClientReferenceID, created.Metadata["leadgen_id"]}},
		{"+33639980102", []any{session.CustomerDetails.Phone, paid.CustomerPhone, failed.CustomerPhone, text["From"]}},
		{"camille@example.com", []any{session.CustomerDetails.Email, paid.CustomerEmail, failed.CustomerEmail}},
		{session.Customer.ID, []any{created.Customer.ID, paid.Customer.ID, updated.Customer.ID, failed.Customer.ID, deleted.Customer.ID}},
		{session.Subscription.ID, []any{created.ID, paid.Subscription.ID, updated.ID, failed.Subscription.ID, deleted.ID,
			failed.Lines.Data[0].Subscription.ID}},
		{paid.ID, []any{session.Invoice.ID, created.LatestInvoice.ID, before.LatestInvoice}},
		{failed.ID, []any{updated.LatestInvoice.ID, deleted.LatestInvoice.ID}},
		{created.Items.Data[0].Price.ID, []any{paid.Lines.Data[0].Price.ID, before.Items.Data[0].Price.ID, failed.Lines.Data[0].Price.ID}},
		{updated.Items.Data[0].Price.ID, []any{failed.Lines.Data[1].Price.ID, deleted.Items.Data[0].Price.ID}},
		{created.Items.Data[0].ID, []any{updated.Items.Data[0].ID, deleted.Items.Data[0].ID}},
		{updated.Items.Data[0].Plan.ID, []any{updated.Items.Data[0].Price.ID}},
		{"active, then past_due", []any{fmt.Sprintf("%s, then %s", created.Status, updated.Status)}},
		{"active", []any{before.Status}},
		{"subscription, complete, paid", []any{fmt.Sprintf("%s, %s, %s", session.Mode, session.Status, session.PaymentStatus)}},
		{"paid, then open", []any{fmt.Sprintf("%s, then %s", paid.Status, failed.Status)}},
		{"canceled cancellation_requested", []any{fmt.Sprintf("%s %s", deleted.Status, deleted.CancellationDetails.Reason)}},
	} {
		for _, g := range c.got {
			if diff := cmp.Diff(any(c.want), g); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	}
	if paid.ID == failed.ID || created.Items.Data[0].Price.ID == updated.Items.Data[0].Price.ID {
		t.Error("the plan did not change, or its invoice is the first one")
	}
	if failed.AttemptCount != 1 || failed.NextPaymentAttempt <= failed.Created || failed.AmountPaid != 0 {
		t.Errorf("the failed payment: attempt %d, next %d", failed.AttemptCount, failed.NextPaymentAttempt)
	}
	if sum := failed.Lines.Data[0].Amount + failed.Lines.Data[1].Amount; failed.AmountDue != sum || paid.AmountPaid != paid.Lines.Data[0].Amount ||
		paid.AmountPaid != session.AmountTotal || paid.AmountPaid != created.Items.Data[0].Price.UnitAmount {
		t.Errorf("the amounts do not add up: %d due, lines of %d", failed.AmountDue, sum)
	}
	if deleted.EndedAt == 0 || deleted.EndedAt <= updated.Created || deleted.CurrentPeriodEnd != created.CurrentPeriodEnd {
		t.Errorf("the end: %d", deleted.EndedAt)
	}
}

func unmarshal(t *testing.T, doc []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(doc, into); err != nil {
		t.Fatal(err)
	}
}
