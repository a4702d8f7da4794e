package consumersd

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/daemon"
	"leadpipe/internal/outcome"
)

func replayCommand() command {
	return command{name: "replay", args: "DURABLE FIRST[-LAST]", count: 2, run: replay,
		does: `Handles messages of a durable again, now: those with the sequences FIRST to LAST of its stream. The durable itself
stays where it is, so live messages wait for nothing (nats consumer reset moves it, and they wait behind the old ones).
What went right before changes nothing. A success closes the incident of its message, and a failure that no retry
can mend opens it. Messages in between that are none of the durable's are left out.

DURABLE is billing, leads, optouts (of the stream WEBHOOKS), sms, blacklist or sheets (of KV_crm).`}
}

// A replayed is what replay says, as JSON.
type replayed struct {
	Durable  string        `json:"durable"`
	First    uint64        `json:"first"`
	Last     uint64        `json:"last"`
	Messages int           `json:"messages"` // those of the durable that are still there
	Done     int           `json:"done"`
	Failed   []notReplayed `json:"failed"`
}

// A notReplayed is a message that did not go through.
type notReplayed struct {
	Sequence uint64 `json:"sequence"`
	Subject  string `json:"subject"`
	Kind     string `json:"kind"` // "permanent": there is an incident; "temporary", "blocked", "not_yet": try later
	Reason   string `json:"reason"`
}

// sequences reads FIRST or FIRST-LAST.
func sequences(arg string) (first, last uint64, err error) {
	from, to, several := strings.Cut(arg, "-")
	if !several {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 64)
	last, err2 := strconv.ParseUint(to, 10, 64)
	if err1 != nil || err2 != nil || first == 0 || last < first {
		return 0, 0, fmt.Errorf("%w: %q is no sequence such as 42, nor a range such as 42-50", errUsage, arg)
	}
	return first, last, nil
}

func replay(op *operator, o options, args []string) error {
	at := slices.IndexFunc(table(), func(r row) bool { return r.durable == args[0] })
	if at < 0 {
		return fmt.Errorf("%w: no durable is called %q", errUsage, args[0])
	}
	r := table()[at]
	first, last, err := sequences(args[1])
	if err != nil {
		return err
	}
	if why, off := op.cfg.missing()[r.durable]; off {
		return fmt.Errorf("%s can't handle anything: %s", r.durable, why)
	}
	durable, err := op.js.Consumer(op.ctx, r.stream, r.durable)
	if err != nil {
		return fmt.Errorf("asking for durable %s of %s: %w", r.durable, r.stream, err)
	}
	said := replayed{Durable: r.durable, First: first, Last: last, Failed: []notReplayed{}}
	part := bus.Range{Stream: r.stream, Subjects: bus.Subjects(durable.CachedInfo().Config), First: first, Last: last}
	if err := op.replay(r, part, &said); err != nil {
		return fmt.Errorf("%w (%d messages done, %d not)", err, said.Done, len(said.Failed))
	}
	if o.json {
		if err := json.NewEncoder(op.out).Encode(said); err != nil {
			return err
		}
	} else {
		for _, f := range said.Failed {
			_, _ = fmt.Fprintf(op.out, "#%d %s: %s: %s\n", f.Sequence, f.Subject, f.Kind, f.Reason)
		}
		_, _ = fmt.Fprintf(op.out, "%s %s: %d messages, %d done, %d not\n", r.durable, args[1], said.Messages, said.Done, len(said.Failed))
	}
	switch {
	case said.Messages == 0:
		return fmt.Errorf("no message of %s is there with such a sequence", r.durable)
	case len(said.Failed) > 0:
		return errSaid
	}
	return nil
}

// replay reads a part of the row's stream and has it handled, as many messages at a time
// as the row takes.
func (op *operator) replay(r row, part bus.Range, said *replayed) error {
	ctx, cancel := context.WithCancel(op.ctx)
	g, work := errgroup.WithContext(ctx)
	defer func() { cancel(); _ = g.Wait() }() // what runs beside a handler, and is not needed here
	log := slog.New(slog.DiscardHandler)      // what goes wrong is in the answer for each message
	p := &parts{cfg: op.cfg, js: op.js, log: log, reg: prometheus.NewRegistry(), metrics: bus.NewMetrics(nil)}
	defer p.close()
	loop, err := p.loop(work, g, r)
	if err != nil {
		return err
	}
	var batch []contracts.Message
	handle := func() error {
		for i, err := range loop.Replay(ctx, batch) {
			if said.Messages++; err == nil {
				said.Done++
				continue
			}
			o := outcome.Of(err)
			reason := daemon.Redact(o.Error())
			if o.Kind == outcome.KindNotYet {
				reason = "due in " + o.After.Round(time.Second).String()
				if o.Err != nil {
					reason += ": " + daemon.Redact(o.Error())
				}
			}
			said.Failed = append(said.Failed, notReplayed{batch[i].Sequence, contracts.PublicSubject(batch[i].Subject), string(o.Kind), reason})
			if o.Kind == outcome.KindBlocked {
				return fmt.Errorf("the provider refuses all of it: %w", err)
			}
		}
		batch = nil
		return ctx.Err()
	}
	err = bus.Messages(ctx, op.js, part, func(m contracts.Message, left uint64) error {
		if batch = append(batch, m); len(batch) < max(r.max, r.workers) {
			return nil
		}
		op.progress.show("messages handled", uint64(said.Messages), uint64(said.Messages)+uint64(len(batch))+left)
		return handle()
	})
	if err == nil && len(batch) > 0 {
		err = handle()
	}
	op.progress.clear()
	return err
}
