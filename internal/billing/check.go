package billing

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/stripe/stripe-go/v76"

	"leadpipe/internal/outcome"
)

// Check asks Stripe whether the key may read subscriptions, by one that does not exist.
// The error is blocked, "auth", for a key that is refused, and "refused" for one that
// may not read subscriptions.
// https://docs.stripe.com/api/errors, https://docs.stripe.com/keys#limit-access
func (s *Stripe) Check(ctx context.Context) error {
	params := &stripe.SubscriptionParams{}
	params.Context = ctx
	_, err := s.client.Get("sub_check", params)
	var refused *stripe.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return outcome.Temporary(outcome.Unavailable, errors.New("Stripe does not answer"))
	}
	switch status := refused.HTTPStatusCode; status {
	case http.StatusNotFound:
		return nil
	case http.StatusUnauthorized:
		return outcome.Blocked(outcome.Auth, errors.New("Stripe refuses the key"))
	case http.StatusForbidden:
		return outcome.Blocked(outcome.Refused, errors.New("the key may not read subscriptions"))
	default:
		return outcome.Temporary(outcome.Unavailable, fmt.Errorf("Stripe answers with status %d", status))
	}
}
