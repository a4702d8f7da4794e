package consumersd

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"unicode"

	"leadpipe/contracts"
	"leadpipe/internal/trace"
)

func traceCommand() command {
	return command{name: "trace", args: "ID", count: 1, run: tell,
		does: `What happened to one lead, person, payment or text, in the order of time: the webhooks that came, the records
they made as they stand now, the texts with their statuses, the incidents. It shows personal data, and changes nothing.

ID is a phone, an e-mail, a lead's id, cus_…, sub_…, in_…, evt_… or a Twilio SID.`}
}

func tell(op *operator, o options, args []string) error {
	story, err := trace.Find(op.ctx, op.js, args[0], trace.Options{Region: op.cfg.Region, Progress: func(read, of uint64) {
		op.progress.show("webhooks read", read, of)
	}})
	op.progress.clear()
	switch {
	case errors.Is(err, trace.ErrNoID):
		return fmt.Errorf("%w: ID is %w", errUsage, err)
	case err != nil:
		return err
	case o.json:
		if err := json.NewEncoder(op.out).Encode(story); err != nil {
			return err
		}
	}
	if len(story.Steps) == 0 {
		return fmt.Errorf("nothing is known of this %s (%d webhooks read)", story.Kind, story.Read)
	}
	if o.json {
		return nil
	}
	w := tabwriter.NewWriter(op.out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "%s %s: %d steps, times in UTC\n", story.Kind, printable(story.ID), len(story.Steps))
	for _, s := range story.Steps {
		place := ""
		if s.Stream == contracts.StreamWebhooks {
			place = fmt.Sprintf("#%d", s.Sequence)
		}
		what := s.Title
		if s.Detail != "" {
			what += ": " + s.Detail
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.At.UTC().Format("2006-01-02 15:04:05"), s.Kind, place, printable(what))
	}
	return w.Flush()
}

// printable takes out of a text what a terminal would obey: it may be a stranger's.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
