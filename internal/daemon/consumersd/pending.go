package consumersd

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/state"
)

// A lead that is pending is completed by its announcement, which comes again until then. An
// announcement may be lost to that: the former release, beside this one during an upgrade,
// takes a lead that is in the bucket for complete; and a durable may be made anew. So once
// in a while the announcements of all that is pending are handled beside the durable, each
// process at times of its own: soon after the start, and from then on every hour.
const (
	firstPending = time.Minute
	pendingEvery = time.Hour
	// youngPending is how old a lead has to be for this; a younger one is still being tried.
	youngPending = 5 * time.Minute
)

func (p *parts) askForPending(ctx context.Context, store *state.Store, handle bus.Handler) {
	for every := firstPending; ; every = pendingEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every/2 + rand.N(every)):
		}
		n, err := pending(ctx, p.js, store, handle, time.Now().Add(-youngPending))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			p.log.Warn("pending leads not asked for", "durable", contracts.Leads, "reason", err.Error())
		case n > 0:
			p.log.Info("pending leads were completed", "durable", contracts.Leads, "leads", n)
		}
	}
}

// pending has the announcements of the leads handled that are pending and were created
// before, some at a time, and says how many leads that completed.
func pending(ctx context.Context, js jetstream.JetStream, store *state.Store, handle bus.Handler, before time.Time) (completed int, err error) {
	var waiting []contracts.Lead
	leads := bus.Range{Stream: contracts.StreamCRM, Subjects: []string{contracts.SubjectOfKey(contracts.KeyLead(">"))}}
	err = bus.Messages(ctx, js, leads, func(m contracts.Message, _ uint64) error {
		var lead contracts.Lead
		// One that is not readable is somebody else's to tell.
		if json.Unmarshal(m.Data, &lead) == nil && lead.Pending && lead.Announced > 0 && lead.CreatedAt.Before(before) {
			waiting = append(waiting, lead)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for some := range slices.Chunk(waiting, 32) {
		var msgs []contracts.Message
		for _, lead := range some {
			m, ok, err := store.Webhook(ctx, lead.Announced)
			if err != nil {
				return completed, fmt.Errorf("the announcement of a pending lead: %w", err)
			}
			if !ok || m.ID != contracts.MessageIDFacebook(lead.ID) {
				continue // it is too old, or of another stream of that name
			}
			m.Attempt = 2 // those that come for the first time go first
			msgs = append(msgs, m)
		}
		if len(msgs) == 0 {
			continue
		}
		// What goes wrong is written down where it belongs, or comes again.
		for _, err := range handle(ctx, msgs) {
			if err == nil {
				completed++
			}
		}
	}
	return completed, nil
}
