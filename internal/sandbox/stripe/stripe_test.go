package stripe_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdk "github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"
	"github.com/stripe/stripe-go/v76/webhook"

	"leadpipe/internal/sandbox/stripe"
)

const key = "sk_test_1"

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func start(t *testing.T, opt stripe.Options) (*stripe.Server, string) {
	t.Helper()
	opt.Key = key
	s, err := stripe.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s)
	t.Cleanup(ts.Close)
	return s, ts.URL
}

// api is Stripe's own client, pointed at the stand-in.
func api(base, apiKey string, retries int64) *client.API {
	b := sdk.GetBackendWithConfig(sdk.APIBackend, &sdk.BackendConfig{
		URL: sdk.String(base), MaxNetworkRetries: sdk.Int64(retries), EnableTelemetry: sdk.Bool(false),
		LeveledLogger: &sdk.LeveledLogger{Level: sdk.LevelNull}, HTTPClient: &http.Client{Timeout: 5 * time.Second},
	})
	return client.New(apiKey, &sdk.Backends{API: b})
}

func put(t *testing.T, s *stripe.Server, objects ...any) {
	t.Helper()
	for _, o := range objects {
		if err := s.Put(o); err != nil {
			t.Fatal(err)
		}
	}
}

func wantError(t *testing.T, name string, err error, status int, code sdk.ErrorCode) {
	t.Helper()
	var e *sdk.Error
	if !errors.As(err, &e) || e.HTTPStatusCode != status || e.Code != code || e.Msg == "" || e.RequestID == "" {
		t.Errorf("%s: %v; want HTTP %d with code %q", name, err, status, code)
	}
}

var (
	subscription = stripe.Subscription{ID: "sub_1", Customer: "cus_1", Status: "past_due", Price: "price_1", Product: "prod_1",
		Amount: 4900, Quantity: 2, Currency: "eur", Created: noon, PeriodStart: noon, PeriodEnd: noon.AddDate(0, 1, 0),
		CancelAtPeriodEnd: true, CanceledAt: noon.Add(time.Hour), CancelReason: "cancellation_requested",
		LatestInvoice: "in_1", Metadata: map[string]string{"k": "v"}}
	invoice = stripe.Invoice{ID: "in_1", Customer: "cus_1", Email: "zoe@example.com", Phone: "+33639980001", Subscription: "sub_1",
		SubscriptionMetadata: map[string]string{"k": "v"}, Status: "open", Currency: "eur", AmountDue: 9800,
		AttemptCount: 2, NextAttempt: noon.AddDate(0, 0, 3), Created: noon, HostedURL: "https://invoice.example.com/1"}
	customer = stripe.Customer{ID: "cus_1", Email: "zoe@example.com", Name: "Zoé", Phone: "+33639980001", Created: noon}
)

func TestRetrieve(t *testing.T) {
	t.Parallel()
	s, base := start(t, stripe.Options{})
	put(t, s, customer.Render(), subscription.Render(stripe.V20231016), invoice.Render(stripe.V20231016))
	c := api(base, key, 0)

	sub, err := c.Subscriptions.Get("sub_1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if sub.Status != "past_due" || sub.Customer.ID != "cus_1" || sub.CurrentPeriodEnd != subscription.PeriodEnd.Unix() ||
		sub.Items.Data[0].Price.UnitAmount != 4900 || sub.Items.Data[0].Quantity != 2 || sub.Items.Data[0].Price.Product.ID != "prod_1" ||
		sub.CanceledAt != noon.Add(time.Hour).Unix() || sub.EndedAt != 0 || sub.CancellationDetails.Reason != "cancellation_requested" {
		t.Errorf("subscription %+v", sub)
	}
	cus, err := c.Customers.Get("cus_1", nil)
	if err != nil || cus.Email != "zoe@example.com" || cus.Name != "Zoé" {
		t.Errorf("customer %+v, %v", cus, err)
	}
	inv, err := c.Invoices.Get("in_1", nil)
	if err != nil || inv.Subscription.ID != "sub_1" || inv.AttemptCount != 2 || inv.Paid || inv.AmountRemaining != 9800 {
		t.Errorf("invoice %+v, %v", inv, err)
	}

	expand := &sdk.SubscriptionParams{}
	expand.AddExpand("customer")
	if sub, err = c.Subscriptions.Get("sub_1", expand); err != nil || sub.Customer.Email != "zoe@example.com" {
		t.Errorf("expanded customer: %v", err)
	}
	expand.AddExpand("status")
	_, err = c.Subscriptions.Get("sub_1", expand)
	wantError(t, "expanding a text", err, 400, "")

	_, err = c.Subscriptions.Get("sub_2", nil)
	wantError(t, "unknown id", err, 404, sdk.ErrorCodeResourceMissing)
	_, err = c.Subscriptions.Get("cus_1", nil)
	wantError(t, "id of another kind", err, 404, sdk.ErrorCodeResourceMissing)
	_, err = c.Charges.Get("ch_1", nil)
	wantError(t, "unknown path", err, 404, "")
	_, err = c.Customers.Update("cus_1", &sdk.CustomerParams{Name: sdk.String("x")})
	wantError(t, "a write", err, 404, "")
	_, err = api(base, "sk_test_2", 0).Customers.Get("cus_1", nil)
	wantError(t, "wrong key", err, 401, "")

	// What is put again replaces what was there.
	changed := customer
	changed.Name = "Zoë"
	put(t, s, changed.Render())
	if cus, err = c.Customers.Get("cus_1", nil); err != nil || cus.Name != "Zoë" {
		t.Errorf("after a change: %+v, %v", cus, err)
	}
}

func TestAnotherVersionIsRefused(t *testing.T) {
	t.Parallel()
	s, base := start(t, stripe.Options{})
	put(t, s, customer.Render())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/customers/cus_1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Stripe-Version", string(stripe.Endive))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("HTTP %d", resp.StatusCode)
	}
}

func TestListEvents(t *testing.T) {
	t.Parallel()
	s, base := start(t, stripe.Options{})
	types := []string{"invoice.paid", "invoice.payment_failed", "customer.subscription.updated"}
	for i := range 12 { // evt_00 is the oldest; two share each second
		put(t, s, json.RawMessage(stripe.Event{ID: fmt.Sprintf("evt_%02d", i), Type: types[i%3], Version: stripe.V20231016,
			Created: noon.Add(time.Duration(i/2) * time.Second), Object: customer.Render()}.JSON()))
	}
	for i := range 6 {
		s.Delivered(fmt.Sprintf("evt_%02d", i))
	}
	c := api(base, key, 0)
	list := func(p *sdk.EventListParams) (out []string) {
		t.Helper()
		it := c.Events.List(p)
		for it.Next() {
			out = append(out, it.Event().ID)
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
		return out
	}
	ids := func(ns ...int) (out []string) {
		for _, n := range ns {
			out = append(out, fmt.Sprintf("evt_%02d", n))
		}
		return out
	}
	paged := func(limit int64, after, before string, single bool) *sdk.EventListParams {
		p := &sdk.EventListParams{}
		p.Limit = sdk.Int64(limit)
		p.Single = single
		if after != "" {
			p.StartingAfter = sdk.String(after)
		}
		if before != "" {
			p.EndingBefore = sdk.String(before)
		}
		return p
	}
	all := ids(11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
	oldestFirst := slices.Clone(all[:9])
	slices.Reverse(oldestFirst) // the iterator's order when it goes back
	cases := map[string]struct {
		params *sdk.EventListParams
		want   []string
	}{
		"all, over pages of ten":   {&sdk.EventListParams{}, all},
		"pages of five":            {paged(5, "", "", false), all},
		"one page":                 {paged(5, "", "", true), all[:5]},
		"after":                    {paged(2, "evt_03", "", false), ids(2, 1, 0)},
		"before, one page":         {paged(2, "", "evt_02", true), ids(3, 4)},
		"before, over pages":       {paged(2, "", "evt_02", false), oldestFirst},
		"before the newest":        {paged(2, "", "evt_11", false), nil},
		"undelivered":              {&sdk.EventListParams{DeliverySuccess: sdk.Bool(false)}, all[:6]},
		"delivered":                {&sdk.EventListParams{DeliverySuccess: sdk.Bool(true)}, all[6:]},
		"by types":                 {&sdk.EventListParams{Types: sdk.StringSlice(types[:2])}, ids(10, 9, 7, 6, 4, 3, 1, 0)},
		"by a group of types":      {&sdk.EventListParams{Type: sdk.String("customer.*")}, ids(11, 8, 5, 2)},
		"created within":           {&sdk.EventListParams{CreatedRange: &sdk.RangeQueryParams{GreaterThan: noon.Unix(), LesserThanOrEqual: noon.Unix() + 2}}, ids(5, 4, 3, 2)},
		"undelivered, by one type": {&sdk.EventListParams{DeliverySuccess: sdk.Bool(false), Types: sdk.StringSlice(types[:1])}, ids(9, 6)},
	}
	for name, c := range cases {
		if d := cmp.Diff(c.want, list(c.params)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	for name, p := range map[string]*sdk.EventListParams{
		"unknown cursor":  paged(5, "evt_99", "", false),
		"limit too great": paged(101, "", "", false),
		"21 types":        {Types: sdk.StringSlice(slices.Repeat(types, 7))},
	} {
		it := c.Events.List(p)
		for it.Next() {
			t.Errorf("%s: an event", name)
		}
		code := sdk.ErrorCode("")
		if name == "unknown cursor" {
			code = sdk.ErrorCodeResourceMissing
		}
		wantError(t, name, it.Err(), 400, code)
	}
	e, err := c.Events.Get("evt_03", nil)
	if err != nil || e.Type != "invoice.paid" || e.Created != noon.Unix()+1 {
		t.Errorf("event %+v, %v", e, err)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	s, base := start(t, stripe.Options{MinLatency: time.Millisecond, MaxLatency: 2 * time.Millisecond})
	put(t, s, customer.Render())
	for f, status := range map[stripe.Fault]int{stripe.RateLimited: 429, stripe.Error500: 500,
		stripe.Error503: 503, stripe.Garbage: 200, stripe.HangUp: 0} {
		s.SetFault(f)
		_, err := api(base, key, 0).Customers.Get("cus_1", nil)
		var e *sdk.Error
		if err == nil || errors.As(err, &e) != (f == stripe.RateLimited || f == stripe.Error500) {
			t.Errorf("%s: %v", f, err)
		}
		calls := s.Calls()
		if last := calls[len(calls)-1]; last.Fault != f || last.Status != status || last.Path != "/v1/customers/cus_1" {
			t.Errorf("%s: recorded as %+v", f, last)
		}
	}
	s.SetFault("")
}

func TestStripesClientTriesAgain(t *testing.T) {
	t.Parallel()
	for f, want := range map[stripe.Fault]int{stripe.RateLimited: 1, stripe.Garbage: 1,
		stripe.Error500: 2, stripe.Error503: 2, stripe.HangUp: 2} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			var tried atomic.Int32
			s, base := start(t, stripe.Options{Fault: func(stripe.Call) stripe.Fault {
				if tried.Add(1) == 1 {
					return f
				}
				return ""
			}})
			put(t, s, customer.Render())
			_, err := api(base, key, 1).Customers.Get("cus_1", nil)
			if n := int(tried.Load()); n != want || (err == nil) != (want == 2) {
				t.Errorf("tried %d times, want %d: %v", n, want, err)
			}
		})
	}
}

func TestShapesOfTheTwoVersions(t *testing.T) {
	t.Parallel()
	decode := func(o map[string]any, into any) {
		t.Helper()
		raw, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatal(err)
		}
	}
	type newInvoice struct {
		Parent struct {
			Type                string
			SubscriptionDetails struct{ Subscription string } `json:"subscription_details"`
		}
		Lines struct {
			Data []struct {
				Parent struct {
					Details struct{ Subscription string } `json:"subscription_item_details"`
				}
			}
		}
	}
	var old, lost sdk.Invoice
	var renewed newInvoice
	paid := invoice
	paid.Status = "paid"
	decode(paid.Render(stripe.V20231016), &old)
	decode(paid.Render(stripe.Endive), &lost)
	decode(paid.Render(stripe.Endive), &renewed)
	if !old.Paid || old.Subscription.ID != "sub_1" || old.SubscriptionDetails.Metadata["k"] != "v" || old.Lines.Data[0].Subscription.ID != "sub_1" {
		t.Errorf("old invoice %+v", old)
	}
	if lost.Paid || lost.Subscription != nil || lost.SubscriptionDetails != nil || lost.AmountDue != 9800 {
		t.Error("stripe-go v76 still finds the moved fields of a new invoice")
	}
	if renewed.Parent.Type != "subscription_details" || renewed.Parent.SubscriptionDetails.Subscription != "sub_1" ||
		renewed.Lines.Data[0].Parent.Details.Subscription != "sub_1" {
		t.Errorf("new invoice %+v", renewed)
	}
	single := invoice
	single.Subscription = ""
	if o := single.Render(stripe.Endive); o["parent"] != nil {
		t.Errorf("an invoice by itself has a parent: %v", o["parent"])
	}

	var oldSub, newSub sdk.Subscription
	var items struct {
		Items struct {
			Data []struct {
				End int64 `json:"current_period_end"`
			}
		}
	}
	decode(subscription.Render(stripe.V20231016), &oldSub)
	decode(subscription.Render(stripe.Endive), &newSub)
	decode(subscription.Render(stripe.Endive), &items)
	end := subscription.PeriodEnd.Unix()
	if oldSub.CurrentPeriodEnd != end || newSub.CurrentPeriodEnd != 0 || items.Items.Data[0].End != end {
		t.Errorf("period ends %d, %d and on the item %d; want %d, 0, %d", oldSub.CurrentPeriodEnd, newSub.CurrentPeriodEnd, items.Items.Data[0].End, end, end)
	}

	var session sdk.CheckoutSession
	decode(stripe.Checkout{ID: "cs_1", Customer: "cus_1", Subscription: "sub_1", Phone: "+33639980001", ClientReferenceID: "42"}.Render(), &session)
	if session.PaymentStatus != "paid" || session.Mode != "subscription" || session.CustomerDetails.Phone != "+33639980001" || session.ClientReferenceID != "42" {
		t.Errorf("checkout %+v", session)
	}
}

func TestEventsVerifyWithStripesLibrary(t *testing.T) {
	t.Parallel()
	event := stripe.Event{ID: "evt_1", Type: "customer.subscription.updated", Version: stripe.V20231016, Created: noon,
		Object: subscription.Render(stripe.V20231016), Previous: map[string]any{"status": "active"}}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		e, err := webhook.ConstructEvent(body, r.Header.Get("Stripe-Signature"), "whsec_1")
		switch {
		case err != nil:
			w.WriteHeader(403)
		case e.ID != "evt_1" || e.Created != noon.Unix() || e.Data.PreviousAttributes["status"] != "active" || e.Data.Object["id"] != "sub_1":
			t.Errorf("event %+v", e)
		}
	}))
	t.Cleanup(ts.Close)
	for want, secrets := range map[int][]string{200: {"whsec_0", "whsec_1"}, 403: {"whsec_0"}} {
		if status, err := stripe.Send(t.Context(), ts.Client(), ts.URL, event.JSON(), secrets...); err != nil || status != want {
			t.Errorf("signed with %v: HTTP %d, %v; want %d", secrets, status, err, want)
		}
	}
	old := stripe.Sign(event.JSON(), time.Now().Add(-time.Hour), "whsec_1")
	if _, err := webhook.ConstructEvent(event.JSON(), old, "whsec_1"); !errors.Is(err, webhook.ErrTooOld) {
		t.Errorf("an hour old: %v", err)
	}
	event.Version = stripe.Endive
	if _, err := webhook.ConstructEvent(event.JSON(), stripe.Sign(event.JSON(), time.Now(), "whsec_1"), "whsec_1"); err == nil {
		t.Error("the other version is not in the event")
	}
	event.Previous = nil
	var doc struct{ Data map[string]any }
	if err := json.Unmarshal(event.JSON(), &doc); err != nil || len(doc.Data) != 1 {
		t.Errorf("data %v, %v", doc.Data, err)
	}
}

func TestUnusableInputIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := stripe.New(stripe.Options{}); err == nil {
		t.Error("a server without a key")
	}
	if _, err := stripe.New(stripe.Options{Key: key, MinLatency: 2, MaxLatency: 1}); err == nil {
		t.Error("a latency that ends before it begins")
	}
	s, _ := start(t, stripe.Options{})
	for name, o := range map[string]any{"no id": map[string]any{"object": "customer"}, "no kind": map[string]any{"id": "cus_1"},
		"a list": []int{1}, "not JSON": json.RawMessage("{")} {
		if err := s.Put(o); err == nil {
			t.Errorf("put: %s", name)
		}
	}
}
