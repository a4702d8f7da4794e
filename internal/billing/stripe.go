package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/subscription"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
)

// Stripe is Stripe's API, of which we read one thing. It is safe for concurrent use.
type Stripe struct{ client subscription.Client }

// NewStripe reads with a secret API key; url, if not empty, replaces Stripe's address.
// Stripe's client tries a read three times by itself.
func NewStripe(key, url string) (*Stripe, error) {
	if key == "" {
		return nil, errors.New("billing: a Stripe API key must be given")
	}
	config := &stripe.BackendConfig{
		HTTPClient:      &http.Client{Timeout: 10 * time.Second},
		LeveledLogger:   &stripe.LeveledLogger{Level: stripe.LevelNull}, // it would log ids and answers
		EnableTelemetry: stripe.Bool(false),
	}
	if url != "" {
		config.URL = stripe.String(strings.TrimSuffix(url, "/"))
	}
	return &Stripe{subscription.Client{B: stripe.GetBackendWithConfig(stripe.APIBackend, config), Key: key}}, nil
}

// Subscription gives a subscription as Stripe has it now; see Reader.
func (s *Stripe) Subscription(ctx context.Context, id string) (json.RawMessage, error) {
	if !contracts.ValidID(id) {
		return nil, nil
	}
	params := &stripe.SubscriptionParams{}
	params.Context = ctx
	answer, err := s.client.Get(id, params)
	if err == nil {
		return answer.LastResponse.RawJSON, nil
	}
	var refused *stripe.Error
	if !errors.As(err, &refused) {
		return nil, outcome.Temporary(outcome.Unavailable, fmt.Errorf("reading a subscription from Stripe: %w", err))
	}
	return nil, verdict(refused.HTTPStatusCode)
}

// verdict says what a status of Stripe's means for a read. nil: it can't be had, and
// the events have to do without; a tie within a second is no reason to stop.
func verdict(status int) error {
	switch {
	case status == http.StatusTooManyRequests:
		return outcome.Temporary(outcome.RateLimited, errors.New("reading a subscription from Stripe: too many requests"))
	case status >= 500 || status == http.StatusConflict || status == http.StatusRequestTimeout || status < 400:
		return outcome.Temporary(outcome.Unavailable, fmt.Errorf("reading a subscription from Stripe: status %d", status))
	}
	return nil
}
