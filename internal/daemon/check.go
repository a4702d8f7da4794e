package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// State is what a check found.
type State string

// The states. Off is what is not configured, or configured in a way that is fine for
// some and not for all: the remedy says for whom.
const (
	OK   State = "ok"
	Off  State = "off"
	Fail State = "FAIL"
)

// A Finding is one line of a check.
type Finding struct {
	State  State  `json:"state"`
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"` // of a FAIL always
}

// Good is what is as it should be.
func Good(format string, args ...any) Finding {
	return Finding{State: OK, What: fmt.Sprintf(format, args...)}
}

// Bad is what is wrong, and what mends it.
func Bad(remedy, format string, args ...any) Finding {
	return Finding{Fail, fmt.Sprintf(format, args...), remedy}
}

// NotOn is what is not configured, and how it would be.
func NotOn(remedy, format string, args ...any) Finding {
	return Finding{Off, fmt.Sprintf(format, args...), remedy}
}

// checkTime bounds one part of a check.
const checkTime = 30 * time.Second

// CheckMain is the command `check` of a program: the configuration first, and if that can
// be right the parts, in this order. The exit code is 1 if anything fails and 2 if it was
// wrongly called.
func CheckMain[C any](program string, args []string, out, errOut io.Writer, parts func(C) []func(context.Context) []Finding) int {
	set := flag.NewFlagSet("check", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	asJSON := set.Bool("json", false, "print one JSON document")
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprintf(out, `%s check

Tries every variable, then asks everything that is configured: NATS and the rights there, the streams, the
providers. It changes nothing. One line each: ok, off (not configured) or FAIL, with what mends it. The exit
code is 1 if anything fails.

Flags:
`, program)
		set.SetOutput(out)
		set.PrintDefaults()
		_, _ = fmt.Fprintf(out, "\nIt reads the same environment as the program (%s -h) and connects as the program does.\n", program)
		return 0
	case err != nil, set.NArg() > 0:
		if err == nil {
			err = errors.New("it takes no arguments")
		}
		_, _ = fmt.Fprintf(errOut, "%s check: %v; usage: %s check [--json]\n", program, err, program)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	var all []Finding
	failed := false
	tell := func(found []Finding) {
		for _, f := range found {
			f.What, f.Remedy = oneLine(f.What), oneLine(f.Remedy)
			failed = failed || f.State == Fail
			all = append(all, f)
			if *asJSON {
				continue
			}
			line := fmt.Sprintf("%-4s  %s", f.State, f.What)
			if f.Remedy != "" {
				line += " — " + f.Remedy
			}
			_, _ = fmt.Fprintln(out, line)
		}
	}
	cfg, err := Load[C]()
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			tell([]Finding{Bad("correct the variable; "+program+" -h says what it means", "%s", line)})
		}
	} else {
		tell([]Finding{Good("configuration: every variable can be right")})
		for _, part := range parts(cfg) {
			partCtx, cancel := context.WithTimeout(ctx, checkTime)
			tell(part(partCtx))
			cancel()
			if ctx.Err() != nil {
				_, _ = fmt.Fprintf(errOut, "%s check: interrupted\n", program)
				return 1
			}
		}
	}
	if *asJSON {
		_ = json.NewEncoder(out).Encode(struct { // a reader that left is no concern of ours
			OK       bool      `json:"ok"`
			Findings []Finding `json:"findings"`
		}{!failed, all})
	}
	if failed {
		return 1
	}
	return 0
}

func oneLine(s string) string { return Redact(strings.Join(strings.Fields(s), " ")) }

// CheckPublicURL says whether providers can reach the edge under PUBLIC_URL. A path in it
// is asked for, since a proxy may be meant to strip it.
func CheckPublicURL(ctx context.Context, value string) []Finding {
	u, err := url.Parse(value)
	if err != nil {
		return []Finding{Bad("correct it", "PUBLIC_URL: not a URL")}
	}
	switch host := u.Hostname(); {
	case isLoopback(host):
		return []Finding{NotOn("set PUBLIC_URL to the https address that providers call", "PUBLIC_URL: %s is this machine, which no provider reaches", value)}
	case u.Scheme != "https":
		return []Finding{Bad("serve the edge behind TLS and set PUBLIC_URL to https://…", "PUBLIC_URL: %s is not https", value)}
	case strings.Contains(u.Path, "/api/webhooks"):
		return []Finding{Bad("name the part before /api/webhooks", "PUBLIC_URL: it has the path of a webhook, which is added to it")}
	case strings.Trim(u.Path, "/") != "":
		if err := healthy(ctx, strings.TrimSuffix(value, "/")+"/healthz"); err != nil {
			return []Finding{Bad("take the path away, or have the proxy strip it and the edge run", "PUBLIC_URL: with the path %s the edge does not answer: %v", u.Path, err)}
		}
	}
	return []Finding{Good("PUBLIC_URL: %s; Twilio calls %s/api/webhooks/sms", value, strings.TrimSuffix(value, "/"))}
}

func healthy(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/healthz answered %d", resp.StatusCode)
	}
	return nil
}
