package bus

import (
	"context"
	"errors"
	"fmt"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
)

// Replay handles messages again, beside the durable and without a word to it, and keeps
// the incidents as the durable's own loop does: a success closes what is open about its
// message, and a failure that no retry can mend opens it. It gives one error for each
// message; see package outcome.
func (l *Loop) Replay(ctx context.Context, msgs []contracts.Message) []error {
	errs := l.guarded(ctx, msgs)
	for i, err := range errs {
		var r *recorded
		if o := outcome.Of(err); err == nil || o.Kind != outcome.KindPermanent || errors.As(err, &r) {
			continue
		} else if rerr := l.record(ctx, msgs[i], o); rerr != nil {
			errs[i] = fmt.Errorf("%w (and its incident could not be recorded: %w)", err, rerr)
		}
	}
	if err := l.mend(ctx, msgs, errs, false); err != nil {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = fmt.Errorf("done, but its incident may still be open: %w", err)
			}
		}
	}
	return errs
}
