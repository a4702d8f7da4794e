package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
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

// A PublishMode says how messages are acknowledged.
type PublishMode string

// The modes, as PUBLISH_MODE spells them.
const (
	PublishAuto   PublishMode = "auto"   // one by one or many at a time, whichever is faster
	PublishSingle PublishMode = "single" // always one by one
	PublishGroup  PublishMode = "group"  // many at a time as soon as two wait
)

// ParsePublishMode reads a mode; empty is PublishAuto.
func ParsePublishMode(s string) (PublishMode, error) {
	switch m := PublishMode(s); m {
	case "":
		return PublishAuto, nil
	case PublishAuto, PublishSingle, PublishGroup:
		return m, nil
	default:
		return "", errors.New("must be auto, single or group")
	}
}

// PublishOptions change what a publisher does; the zero value is PublishAuto.
type PublishOptions struct {
	Mode       PublishMode
	Registerer prometheus.Registerer // takes the publisher's metrics; may be nil
}

// A Publisher stores webhooks in the WEBHOOKS stream. It is safe for concurrent use.
// Nothing of it runs while no call of Publish is under way.
type Publisher struct {
	js      jetstream.JetStream
	mode    PublishMode
	refused atomic.Pointer[refusal]
	stored  atomic.Int64 // when a new message was last stored, in Unix nanoseconds
	queue   queue
	grouped prometheus.Histogram

	tookSingle, tookGroup prometheus.Observer
}

// A refusal is a webhook that could not be stored, and when.
type refusal struct {
	at  time.Time
	err error
}

// refusedFor is how long a refusal says that the next webhook would meet the same.
const refusedFor = 10 * time.Second

// ErrBusy says that too much waits to be stored already.
var ErrBusy = errors.New("too many messages wait to be stored")

// NewPublisher makes a publisher over a connection, in PublishAuto.
func NewPublisher(js jetstream.JetStream) *Publisher { return NewPublisherWith(js, PublishOptions{}) }

// NewPublisherWith makes a publisher over a connection.
func NewPublisherWith(js jetstream.JetStream, o PublishOptions) *Publisher {
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "edge_publish_seconds", Help: "From sending a message, or a group, to JetStream's answer.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}, []string{"mode"})
	p := &Publisher{js: js, mode: cmp.Or(o.Mode, PublishAuto),
		tookSingle: took.WithLabelValues(string(PublishSingle)), tookGroup: took.WithLabelValues(string(PublishGroup)),
		grouped: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "edge_publish_group_messages", Help: "Messages stored by one acknowledgement for several.",
			Buckets: prometheus.ExponentialBuckets(2, 2, 9)}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(took, p.grouped)
	}
	return p
}

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
// ends, so that a killed leader costs seconds and no webhook. ErrBusy: nothing was
// sent, since too much waits.
func (p *Publisher) Publish(ctx context.Context, msgs []contracts.Message) error {
	if p.groups() && !slices.ContainsFunc(msgs, large) {
		return p.publishQueued(ctx, msgs)
	}
	if len(msgs) == 1 {
		return p.publish(ctx, msgs[0], func() {})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(publishAtOnce)
	for _, m := range msgs {
		g.Go(func() error { return p.publish(ctx, m, func() {}) })
	}
	return g.Wait()
}

// publish stores one message by itself. It calls tried after its first try, when the
// message no longer takes a place among those that are being sent.
func (p *Publisher) publish(ctx context.Context, m contracts.Message, tried func()) error {
	e := seal(m)
	defer e.free()
	err := p.try(ctx, e)
	tried()
	for ; err != nil; err = p.try(ctx, e) {
		if !repeatable(err) {
			return fmt.Errorf("publishing %s: %w", contracts.PublicSubject(m.Subject), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("publishing %s: %w (last answer: %w)", contracts.PublicSubject(m.Subject), ctx.Err(), err)
		case <-time.After(publishPause):
		}
	}
	return nil
}

func (p *Publisher) try(ctx context.Context, e *envelope) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	start, wait := time.Now(), publishTry
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, end.Sub(start))
	}
	a, err := p.request(e, wait)
	p.tookSingle.Observe(time.Since(start).Seconds())
	switch {
	case errors.Is(ctx.Err(), context.Canceled): // the provider has gone, which says nothing of us
	case err != nil && start.UnixNano() > p.stored.Load():
		p.refused.Store(&refusal{time.Now(), err})
	case err == nil && !a.duplicate: // a duplicate needs no room
		p.stored.Store(time.Now().UnixNano())
		p.refused.Store(nil)
	}
	return err
}
