package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"leadpipe/contracts"
	"leadpipe/internal/rawjson"
)

// An envelope is a message of the WEBHOOKS stream as it is sent. The client copies it
// while it sends, so an envelope is used again for the next message.
type envelope struct {
	msg    nats.Msg
	values []string // of its headers, which are slices of it
}

var envelopes = sync.Pool{New: func() any { return &envelope{msg: nats.Msg{Header: nats.Header{}}} }}

// seal puts a message into an envelope, which is to be freed.
func seal(m contracts.Message) *envelope {
	e := envelopes.Get().(*envelope)
	e.msg.Subject, e.msg.Data = m.Subject, m.Data
	for k, v := range m.Header {
		e.set(k, v)
	}
	e.set(jetstream.MsgIDHeader, m.ID)
	e.set(jetstream.ExpectedStreamHeader, contracts.StreamWebhooks)
	return e
}

func (e *envelope) set(header, value string) {
	e.values = append(e.values, value)
	n := len(e.values)
	e.msg.Header[header] = e.values[n-1 : n : n]
}

func (e *envelope) free() {
	clear(e.msg.Header)
	clear(e.values)
	e.values, e.msg.Subject, e.msg.Data = e.values[:0], "", nil
	envelopes.Put(e)
}

// An ack is JetStream's answer to a message or to a group.
type ack struct {
	duplicate bool
	batch     string // the group's id
	count     string // how many messages it had
}

// request sends a message, and reads the answer. A refusal of the server is a
// *jetstream.APIError.
func (p *Publisher) request(e *envelope, wait time.Duration) (ack, error) {
	res, err := p.js.Conn().RequestMsg(&e.msg, wait)
	if err != nil {
		return ack{}, err
	}
	a := [...]rawjson.Member{{Name: "error"}, {Name: "stream"}, {Name: "duplicate"}, {Name: "batch"}, {Name: "count"}}
	if rawjson.Read(res.Data, a[:]) != nil {
		return ack{}, jetstream.ErrInvalidJSAck
	}
	if !rawjson.Missing(a[0].Value) {
		var refused jetstream.APIError
		if json.Unmarshal(a[0].Value, &refused) != nil {
			return ack{}, jetstream.ErrInvalidJSAck
		}
		return ack{}, fmt.Errorf("nats: %w", &refused)
	}
	if len(a[1].Value) <= len(`""`) {
		return ack{}, jetstream.ErrInvalidJSAck
	}
	batch, _ := rawjson.Text(a[3].Value)
	return ack{string(a[2].Value) == "true", batch, string(a[4].Value)}, nil
}

// requestGroup sends messages as one atomic batch, and waits for the one answer.
func (p *Publisher) requestGroup(group []*envelope, wait time.Duration) error {
	id, last := nuid.Next(), len(group)-1
	for i, e := range group {
		e.set(jetstreamext.BatchIDHeader, id)
		e.set(jetstreamext.BatchSeqHeader, strconv.Itoa(i+1))
		if i == last {
			break
		}
		if err := p.js.Conn().PublishMsg(&e.msg); err != nil {
			return fmt.Errorf("sending a message of a group: %w", err)
		}
	}
	group[last].set(jetstreamext.BatchCommitHeader, "1")
	a, err := p.request(group[last], wait)
	if err != nil {
		return err
	}
	if a.batch != id || a.count != strconv.Itoa(len(group)) {
		return jetstreamext.ErrInvalidBatchAck
	}
	return nil
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
