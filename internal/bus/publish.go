package bus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"leadpipe/contracts"
)

const (
	// publishTry is how long one try waits for the acknowledgement. Short, since an
	// answer that was lost costs only another try under the same id.
	publishTry = time.Second
	// publishAtOnce bounds the publishes that one request has under way.
	publishAtOnce = 64
	// publishPause is between two tries: a new leader takes seconds, so more often
	// would be noise, and more seldom would keep the provider waiting.
	publishPause = 50 * time.Millisecond
)

// A Publisher stores webhooks in the WEBHOOKS stream.
type Publisher struct {
	js      jetstream.JetStream
	refused atomic.Pointer[refusal]
}

// A refusal is a webhook that could not be stored, and when.
type refusal struct {
	at  time.Time
	err error
}

// refusedFor is how long a refusal says that the next webhook would meet the same.
const refusedFor = 10 * time.Second

// NewPublisher makes a publisher over a connection.
func NewPublisher(js jetstream.JetStream) *Publisher { return &Publisher{js: js} }

// Refused is why the last new message was not stored; nil: it was, or that is too
// long ago to mean anything. Some reasons (a full disk, say) show in nothing else.
func (p *Publisher) Refused() error {
	if r := p.refused.Load(); r != nil && time.Since(r.at) < refusedFor {
		return r.err
	}
	return nil
}

// Publish stores messages, each once: an id that the stream has seen counts as
// stored. nil: every one is on disk. Otherwise some may be stored; publishing them
// again is safe. A try without an answer is repeated under the same id until ctx
// ends, so that a killed leader costs seconds and no webhook.
func (p *Publisher) Publish(ctx context.Context, msgs []contracts.Message) error {
	if len(msgs) == 1 {
		return p.publish(ctx, msgs[0])
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(publishAtOnce)
	for _, m := range msgs {
		g.Go(func() error { return p.publish(ctx, m) })
	}
	return g.Wait()
}

func (p *Publisher) publish(ctx context.Context, m contracts.Message) error {
	msg := nats.NewMsg(m.Subject)
	msg.Data = m.Data
	for k, v := range m.Header {
		msg.Header.Set(k, v)
	}
	msg.Header.Set(jetstream.MsgIDHeader, m.ID)
	for {
		err := p.try(ctx, msg)
		if err == nil {
			return nil
		}
		if !repeatable(err) {
			return fmt.Errorf("publishing %s: %w", contracts.PublicSubject(m.Subject), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("publishing %s: %w (last answer: %w)", contracts.PublicSubject(m.Subject), ctx.Err(), err)
		case <-time.After(publishPause):
		}
	}
}

func (p *Publisher) try(ctx context.Context, msg *nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, publishTry)
	defer cancel()
	ack, err := p.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(contracts.StreamWebhooks), jetstream.WithRetryAttempts(0))
	switch {
	case err != nil:
		p.refused.Store(&refusal{time.Now(), err})
	case !ack.Duplicate: // a duplicate needs no room
		p.refused.Store(nil)
	}
	return err
}

// codeDuplicateInProcess says that the same id is being stored right now, by
// somebody else's publish: it is not stored yet, and may fail to be.
const codeDuplicateInProcess jetstream.ErrorCode = 10158

// repeatable says whether the same publish may succeed in a moment. An answer of the
// server that is not about the moment (the stream is full, say) is final for this
// request; the provider comes again.
func repeatable(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode == codeDuplicateInProcess
	}
	return !errors.Is(err, nats.ErrMaxPayload) && !errors.Is(err, nats.ErrInvalidMsg) &&
		!errors.Is(err, nats.ErrBadSubject) && !errors.Is(err, nats.ErrConnectionClosed)
}
