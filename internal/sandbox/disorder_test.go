package sandbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/sandbox"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/sandbox/stripe"
	"leadpipe/internal/webhook/facebook"
	"leadpipe/internal/webhook/twilio"
)

const people = 20

// A delivery is one webhook, signed when it is sent.
type delivery struct {
	path string
	body []byte
	form map[string]string // in place of body, of Twilio's
}

func phoneOf(i int) string { return fmt.Sprintf("+3363998%04d", i) }

// stories is what happens to some people, in the order in which it happens: each fills
// in a form and pays; then payments fail, subscriptions end, and some answer STOP.
func stories(begin time.Time) (leads []meta.Lead, out []delivery) {
	for i := range people {
		lead := meta.Lead{ID: fmt.Sprintf("77000000000%04d", i), CreatedTime: begin, PageID: "1", FormID: "2", Platform: "fb",
			Fields: []meta.Field{{Name: "full_name", Values: []string{fmt.Sprintf("Zoé %d", i)}}, {Name: "phone_number", Values: []string{phoneOf(i)}},
				{Name: "email", Values: []string{fmt.Sprintf("zoe%d@example.com", i)}}}}
		leads = append(leads, lead)
		out = append(out, delivery{path: "/api/webhooks/facebook", body: meta.Webhook(meta.AsNumbers, lead)})
	}
	event := func(i, n int, typ string, v stripe.Version, object any, previous map[string]any) {
		e := stripe.Event{ID: fmt.Sprintf("evt_%d_%d", i, n), Type: typ, Version: v, Created: begin.Add(time.Duration(n) * time.Second), Object: object, Previous: previous}
		out = append(out, delivery{path: "/api/webhooks/stripe", body: e.JSON()})
	}
	for n, what := range []string{"checkout", "created", "paid", "failed", "failed again", "updated", "deleted", "stop"} {
		for i := range people {
			v := []stripe.Version{stripe.V20231016, stripe.Endive}[i%2]
			cus, subID := fmt.Sprintf("cus_%d", i), fmt.Sprintf("sub_%d", i)
			sub := stripe.Subscription{ID: subID, Customer: cus, Status: "active", Price: "price_1", Product: "prod_1", Amount: 2900, Currency: "eur",
				Created: begin, PeriodStart: begin, PeriodEnd: begin.Add(30 * 24 * time.Hour)}
			in := stripe.Invoice{ID: fmt.Sprintf("in_%d", i), Customer: cus, Subscription: subID, Email: fmt.Sprintf("zoe%d@example.com", i), Status: "open",
				Currency: "eur", AmountDue: 2900, Created: begin}
			switch {
			case what == "checkout":
				event(i, n, "checkout.session.completed", v, stripe.Checkout{ID: fmt.Sprintf("cs_%d", i), Customer: cus, Subscription: subID,
					Email: fmt.Sprintf("zoe%d@example.com", i), Amount: 2900, Currency: "eur", Created: begin}.Render(), nil)
			case what == "created":
				event(i, n, "customer.subscription.created", v, sub.Render(v), nil)
			case what == "paid":
				in.ID, in.Status, in.AmountPaid, in.AttemptCount = fmt.Sprintf("in_first_%d", i), "paid", 2900, 1
				event(i, n, "invoice.payment_succeeded", v, in.Render(v), nil)
			case what == "failed" && i%2 == 0:
				in.AttemptCount = 1
				event(i, n, "invoice.payment_failed", v, in.Render(v), nil)
			case what == "failed again" && i%4 == 0:
				in.AttemptCount = 3
				event(i, n, "invoice.payment_failed", v, in.Render(v), nil)
			case what == "updated" && i%2 == 0:
				sub.Status = "past_due"
				event(i, n, "customer.subscription.updated", v, sub.Render(v), map[string]any{"status": "active"})
			case what == "deleted" && i%5 == 0:
				sub.Status, sub.EndedAt, sub.CanceledAt, sub.CancelReason = "canceled", begin.Add(time.Hour), begin.Add(time.Hour), "payment_failed"
				event(i, n, "customer.subscription.deleted", v, sub.Render(v), nil)
			case what == "stop" && i%3 == 0:
				out = append(out, delivery{path: twilio.InboundPath, form: map[string]string{"MessageSid": fmt.Sprintf("SM%032d", i), "AccountSid": sandbox.TwilioAccount,
					"From": phoneOf(i), "To": "+33939980001", "Body": "Stop svp"}})
			}
		}
	}
	return leads, out
}

func send(t *testing.T, s *sandbox.Sandbox, d delivery) {
	t.Helper()
	body, header := d.body, http.Header{"Content-Type": {"application/json"}}
	switch d.path {
	case "/api/webhooks/stripe":
		header.Set("Stripe-Signature", stripe.Sign(body, time.Now(), sandbox.StripeSecret))
	case "/api/webhooks/facebook":
		header.Set("X-Hub-Signature-256", facebook.Sign(body, sandbox.AppSecret))
	default:
		values := url.Values{}
		for k, v := range d.form {
			values.Set(k, v)
		}
		body = []byte(values.Encode())
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		header.Set("X-Twilio-Signature", twilio.Sign(sandbox.TwilioToken, s.EdgeURL+d.path, d.form))
	}
	req, err := http.NewRequest(http.MethodPost, s.EdgeURL+d.path, strings.NewReader(string(body)))
	if err != nil {
		t.Error(err)
		return
	}
	req.Header = header
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("%s: %d", d.path, res.StatusCode)
	}
}

// outcome waits until nothing is left to do and gives the records.
func outcome(t *testing.T, s *sandbox.Sandbox) map[string]json.RawMessage {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for quiet := 0; quiet < 5; {
		if quiet++; s.Busy(t.Context()) {
			quiet = 0
		}
		if time.Now().After(deadline) {
			t.Fatal("still at work after a minute")
		}
		time.Sleep(20 * time.Millisecond)
	}
	records := map[string]json.RawMessage{}
	if err := bus.Scan(context.Background(), s.JS, func(string) bool { return true }, func(m contracts.Message) error {
		records[contracts.KeyOfSubject(m.Subject)] = m.Data
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return records
}

// visible is what an owner looks at in a record, without the times at which a STOP
// happened to reach us.
func visible(t *testing.T, records map[string]json.RawMessage) map[string]string {
	t.Helper()
	out := map[string]string{}
	for k, data := range records {
		switch kind, _, _ := strings.Cut(k, "."); kind {
		case "customer", "subscription", "churn", "index":
			if !strings.HasPrefix(k, "index.text.") { // Twilio draws a text's SID, and which failures are told depends on the order
				out[k] = string(data)
			}
		case "lead":
			var l contracts.Lead
			if err := json.Unmarshal(data, &l); err != nil {
				t.Fatal(err)
			}
			out[k] = fmt.Sprint(l.Status, l.CustomerID, l.Phone, !l.OptedOutAt.IsZero())
		case "contact":
			var c contracts.Contact
			if err := json.Unmarshal(data, &c); err != nil {
				t.Fatal(err)
			}
			out[k] = fmt.Sprint(c.Leads, c.Customers, !c.OptedOutAt.IsZero())
		case "optout":
			var o contracts.OptOut
			if err := json.Unmarshal(data, &o); err != nil {
				t.Fatal(err)
			}
			out[k] = fmt.Sprint(o.Keyword, o.MessageSID, !o.ConfirmedAt.IsZero(), !o.ProviderBlockedAt.IsZero())
		case "incident":
			out[k] = string(data)
		}
	}
	return out
}

// TestTwiceAndBackwards: everything delivered once and in order, or twice, backwards and
// from all sides: the same state, the same spreadsheet, and nobody is texted twice.
func TestTwiceAndBackwards(t *testing.T) {
	t.Parallel()
	begin := time.Now().Add(-time.Hour).Truncate(time.Second)
	leads, deliveries := stories(begin)
	orderly, _ := start(t)
	disorderly, _ := start(t)
	for _, l := range leads {
		orderly.Meta.AddLead(l)
		disorderly.Meta.AddLead(l)
	}
	for _, d := range deliveries {
		send(t, orderly, d)
	}
	var wg sync.WaitGroup
	queue := make(chan delivery)
	for range 8 {
		wg.Go(func() {
			for d := range queue {
				send(t, disorderly, d)
				send(t, disorderly, d)
			}
		})
	}
	for _, d := range slices.Backward(deliveries) {
		queue <- d
	}
	close(queue)
	wg.Wait()

	want, got := outcome(t, orderly), outcome(t, disorderly)
	if d := cmp.Diff(visible(t, want), visible(t, got)); d != "" {
		t.Errorf("the state differs (-in order +twice and backwards):\n%s", d)
	}
	for name, s := range map[string]*sandbox.Sandbox{"in order": orderly, "twice and backwards": disorderly} {
		welcomes, confirmations := map[string]int{}, map[string]int{}
		for _, m := range s.Twilio.Messages() {
			switch {
			case strings.Contains(m.Body, "merci pour votre demande"):
				welcomes[m.To]++
			case strings.Contains(m.Body, "désabonné"):
				confirmations[m.To]++
			}
		}
		for i := range people {
			stopped := i%3 == 0
			if welcomes[phoneOf(i)] > 1 || (confirmations[phoneOf(i)] == 1) != stopped {
				t.Errorf("%s: person %d got %d welcomes and %d confirmations, stopped: %v", name, i, welcomes[phoneOf(i)], confirmations[phoneOf(i)], stopped)
			}
		}
		if rows := s.Google.Rows("Leads"); len(rows) != 1+people {
			t.Errorf("%s: %d rows of leads", name, len(rows))
		}
		rows := s.Google.Rows("Clients")
		if len(rows) != 1+people {
			t.Fatalf("%s: %d rows of clients", name, len(rows))
		}
		for _, r := range rows[1:] {
			var c contracts.Customer
			if err := json.Unmarshal(want["customer."+r[0]], &c); err != nil {
				t.Fatal(err)
			}
			if r[5] != string(c.Status) || r[6] != string(c.Access) {
				t.Errorf("%s: the row of %s says %s, %s; the record %s, %s", name, r[0], r[5], r[6], c.Status, c.Access)
			}
		}
	}
}
