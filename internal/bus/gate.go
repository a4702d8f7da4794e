package bus

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// A gate holds a whole consumer back while its provider refuses us: one message at a
// time is tried, with growing pauses, and one incident says what to do.
type gate struct {
	log   *slog.Logger
	pause time.Duration // until the next try; 0: open
}

const (
	firstGate = 2 * time.Second
	lastGate  = time.Minute
	// mendTimeout bounds the look for incidents that a success closes.
	mendTimeout = 2 * time.Second
)

// blocked closes the gate and makes sure that one incident is open.
func (l *Loop) blocked(ctx context.Context, m contracts.Message, o *outcome.Error) {
	l.gate.pause = min(lastGate, max(firstGate, 2*l.gate.pause))
	now := time.Now().UTC().Truncate(time.Second)
	err := l.store.Update(ctx, func(tx *state.Tx) error { return incident.Blocked(tx, l.name, m, o, now) })
	if err != nil {
		l.log.Error("incident not recorded", "reason", err.Error())
	}
	l.log.Error("consumer waits until the provider takes it again", "kind", o.Reason, "next_try_in", l.gate.pause.String(), "reason", o.Error())
}

// mend closes the incidents that the successes of a batch have mended: that of a gate
// which was closed, by this process or another, and those of messages that failed
// before. (A fold closes the latter in its own commit.)
func (l *Loop) mend(ctx context.Context, msgs []contracts.Message, errs []error, unblocked bool) error {
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	var index contracts.IncidentIndex
	if _, err := l.store.Get(ctx, contracts.KeyIncidentIndex, &index); err != nil {
		return fmt.Errorf("looking at the open incidents: %w", err)
	}
	if len(index.Open) == 0 {
		return nil
	}
	var mended []contracts.Message
	for i, m := range msgs {
		if errs[i] == nil && incident.Concerns(index, l.name, m) {
			mended = append(mended, m)
		}
	}
	now := time.Now()
	err := l.store.Update(ctx, func(tx *state.Tx) error {
		for _, m := range mended {
			if err := incident.Succeeded(tx, l.name, m, now); err != nil {
				return err
			}
		}
		if !unblocked {
			return nil
		}
		return incident.Unblocked(tx, l.name, now)
	})
	if err != nil {
		return fmt.Errorf("closing incidents: %w", err)
	}
	return nil
}
