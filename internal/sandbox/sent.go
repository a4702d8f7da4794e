package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/webhook/facebook"
	"leadpipe/internal/webhook/stripe"
)

// A sent is a webhook that can be delivered again, as its provider would.
type sent struct {
	what  string // "invoice.paid"
	again func(context.Context) (status int, err error)
}

// deliveries are the newest webhooks that were sent, oldest first.
type deliveries struct {
	mu   sync.Mutex
	list []sent
}

const mostSent = 20

func (s *Sandbox) remember(what string, again func(context.Context) (int, error)) {
	s.deliveries.mu.Lock()
	defer s.deliveries.mu.Unlock()
	s.deliveries.list = append(s.deliveries.list, sent{what, again})
	if len(s.deliveries.list) > mostSent {
		s.deliveries.list = s.deliveries.list[1:]
	}
}

// lately gives the newest n, oldest first.
func (s *Sandbox) lately(n int) []sent {
	s.deliveries.mu.Lock()
	defer s.deliveries.mu.Unlock()
	return slices.Clone(s.deliveries.list[max(0, len(s.deliveries.list)-n):])
}

func (s *Sandbox) sentLately() []string {
	out := []string{}
	for _, d := range slices.Backward(s.lately(5)) {
		out = append(out, d.what)
	}
	return out
}

// again delivers the last webhook n times more, all at once.
func (s *Sandbox) again(ctx context.Context, n int) (string, error) {
	last := s.lately(1)
	if len(last) == 0 {
		return "", errors.New("nothing was sent yet")
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = took(last[0].again(ctx)) })
	}
	wg.Wait()
	return "stream info WEBHOOKS", errors.Join(errs...)
}

// backwards delivers the last n webhooks again, the newest first.
func (s *Sandbox) backwards(ctx context.Context, n int) (string, error) {
	last := s.lately(n)
	if len(last) == 0 {
		return "", errors.New("nothing was sent yet")
	}
	for _, d := range slices.Backward(last) {
		if err := took(d.again(ctx)); err != nil {
			return "", err
		}
	}
	return "stream info WEBHOOKS", nil
}

// postStripe sends an event, signed as Stripe signs it, each time anew.
func (s *Sandbox) postStripe(ctx context.Context, what string, body []byte) (status int, err error) {
	send := func(ctx context.Context) (int, error) {
		return s.post(ctx, "/api/webhooks/stripe", map[string]string{"Content-Type": contracts.ContentJSON,
			"Stripe-Signature": stripe.Sign(body, time.Now(), StripeSecret)}, body)
	}
	s.remember(what, send)
	return send(ctx)
}

// SendLead has somebody fill in a form: Meta then knows the lead and tells the edge.
func (s *Sandbox) SendLead(ctx context.Context, name, phone, email string) (status int, err error) {
	return s.sendLeads(ctx, newLead(name, phone, email))
}

// SendLeads has n people fill in a form at once, with numbers of their own from the
// first-th of a fictional range on; Meta tells of them in one body.
func (s *Sandbox) SendLeads(ctx context.Context, first, n int) (status int, err error) {
	leads := make([]meta.Lead, n)
	for i := range leads {
		leads[i] = newLead("Zoé Martin", fmt.Sprintf("+336399%05d", first+i), fmt.Sprintf("zoe%d@example.com", first+i))
	}
	return s.sendLeads(ctx, leads...)
}

func newLead(name, phone, email string) meta.Lead {
	return meta.Lead{
		ID: strconv.FormatInt(1e15+rand.Int64N(8e15), 10), CreatedTime: time.Now(), PageID: "100000000000101", FormID: "100000000000202", Platform: "fb",
		Fields: []meta.Field{{Name: "full_name", Values: []string{name}}, {Name: "phone_number", Values: []string{phone}}, {Name: "email", Values: []string{email}}},
	}
}

func (s *Sandbox) sendLeads(ctx context.Context, leads ...meta.Lead) (status int, err error) {
	for _, l := range leads {
		s.Meta.AddLead(l)
	}
	body := meta.Webhook(meta.AsStrings, leads...)
	send := func(ctx context.Context) (int, error) {
		return s.post(ctx, "/api/webhooks/facebook", map[string]string{
			"Content-Type": contracts.ContentJSON, "X-Hub-Signature-256": facebook.Sign(body, AppSecret)}, body)
	}
	s.remember("leadgen", send)
	return send(ctx)
}

func (s *Sandbox) post(ctx context.Context, path string, header map[string]string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.EdgeURL+path, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("making a webhook: %w", err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("sending a webhook: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, nil
}
