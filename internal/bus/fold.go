package bus

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"leadpipe/contracts"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// Fold makes a handler of a consumer that decides. Every message is prepared (decoded,
// and read from elsewhere; parallel of them at a time), then all are decided over one
// transaction that commits once. A message that fails leaves nothing behind but, if it
// ends here, its incident, in the same commit. prepare must not write; decide must
// have no effect but through its Tx, and may run several times.
func Fold[E any](durable string, store *state.Store, parallel int,
	prepare func(context.Context, contracts.Message) (E, error), decide func(*state.Tx, E) error,
) Handler {
	return func(ctx context.Context, msgs []contracts.Message) []error {
		events, failures := prepareAll(ctx, msgs, parallel, prepare)
		written := make([]error, len(msgs)) // the error whose incident the fold has put
		results := store.Fold(ctx, len(msgs), func(tx *state.Tx, i int) error {
			if failures[i] != nil {
				return failures[i]
			}
			if err := decide(tx, events[i]); err != nil {
				return err
			}
			return incident.Succeeded(tx, durable, msgs[i], time.Now())
		}, func(tx *state.Tx, i int, err error) error {
			o := outcome.Of(err)
			if !final(msgs[i], o) {
				return nil
			}
			written[i] = err
			return incident.Failed(tx, durable, msgs[i], o)
		})
		for i, err := range results {
			// Only if it is still this error: a commit that failed undid the incident too.
			if err != nil && written[i] == err {
				results[i] = &recorded{err}
			}
		}
		return results
	}
}

// prepareAll prepares messages, some at a time. Once the provider refuses one for a
// reason that concerns all, the others are not tried.
func prepareAll[E any](ctx context.Context, msgs []contracts.Message, parallel int,
	prepare func(context.Context, contracts.Message) (E, error),
) ([]E, []error) {
	events := make([]E, len(msgs))
	failures := make([]error, len(msgs))
	var blocked atomic.Pointer[error]
	var g errgroup.Group
	g.SetLimit(max(1, parallel))
	one := func(i int) {
		if err := blocked.Load(); err != nil {
			failures[i] = *err
			return
		}
		defer func() {
			if r := recover(); r != nil {
				failures[i] = outcome.Panicked(r)
			}
		}()
		events[i], failures[i] = prepare(ctx, msgs[i])
		if err := failures[i]; err != nil && outcome.Of(err).Kind == outcome.KindBlocked {
			blocked.Store(&err)
		}
	}
	for i := range msgs {
		if parallel <= 1 {
			one(i)
			continue
		}
		g.Go(func() error { one(i); return nil })
	}
	_ = g.Wait() // one never fails
	return events, failures
}
