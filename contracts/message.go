package contracts

import (
	"log/slog"
	"time"
)

// A Message is one message of the WEBHOOKS stream or of the crm bucket's stream,
// on its way in or out. The edge fills Subject, ID, Header and Data; what comes
// back from a stream has all fields.
type Message struct {
	Stream   string            // "WEBHOOKS" or "KV_crm"; empty before it is stored
	Subject  string            // e.g. "webhooks.stripe.invoice.payment_failed"
	ID       string            // Nats-Msg-Id, e.g. "stripe:evt_1"; the de-duplication key
	Header   map[string]string // CloudEvents and Content-Type; never nil on a received message
	Data     []byte
	Sequence uint64    // the stream's sequence; 0 before it is stored
	Time     time.Time // when the stream stored it
	Attempt  int       // how often the server has delivered it to this durable, from 1
	Failures int       // how many of its deliveries to this process failed and may yet succeed; waiting is no failure
}

// OccurredAt says when the edge received what the message tells: its ce-time
// header, or, without a readable one, the time at which the stream stored it. It
// is the same on every replay, and survives a stream that was restored or
// mirrored.
func (m Message) OccurredAt() time.Time {
	if t, err := time.Parse(time.RFC3339Nano, m.Header[HeaderTime]); err == nil {
		return t.UTC()
	}
	return m.Time.UTC()
}

// LogValue shows where the message is, and nothing of what it says: a subject may
// end with a phone number, so only its fixed part is logged.
func (m Message) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("stream", m.Stream),
		slog.Uint64("sequence", m.Sequence),
		slog.String("subject", PublicSubject(m.Subject)),
		slog.Int("attempt", m.Attempt),
	)
}
