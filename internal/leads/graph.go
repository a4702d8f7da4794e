package leads

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"leadpipe/internal/outcome"
)

const (
	// graphTimeout bounds one call. Graph answers a lead within a second or so.
	graphTimeout = 15 * time.Second
	// maxAnswer is the most that is read of an answer. A form of a dozen questions,
	// each answered with 10,000 escaped characters, stays below it.
	maxAnswer = 2 << 20
	// longestHold is the longest pause that a rate limit may ask for. Graph counts over
	// an hour or a day and says how many minutes are left; one call an hour harms nobody.
	longestHold = time.Hour
	// leadFields are what we ask for. Consent check boxes are not among field_data.
	leadFields = "id,created_time,ad_id,form_id,field_data,custom_disclaimer_responses"
)

// GraphOptions say which Graph API to ask, and as whom.
type GraphOptions struct {
	URL       string // with the version: https://graph.facebook.com/v26.0
	Token     string // page access token
	AppSecret string // signs the token (appsecret_proof); empty: calls carry no proof

	Metrics   prometheus.Registerer // may be nil
	Transport http.RoundTripper     // nil: one of its own
	Now       func() time.Time      // nil: time.Now
}

// Graph reads leads from Meta's Graph API. It is safe for concurrent use. After an
// answer that names a rate limit it makes no call until the limit is over.
type Graph struct {
	base, token, proof string
	http               *http.Client
	now                func() time.Time
	calls              *prometheus.CounterVec

	mu   sync.Mutex
	hold time.Time // no call before
}

// NewGraph makes a client; it makes no call. An error says which option can't be right.
func NewGraph(opt GraphOptions) (*Graph, error) {
	u, err := url.Parse(opt.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" {
		return nil, errors.New("graph: the URL must be http(s)://host/version")
	}
	if opt.Token == "" {
		return nil, errors.New("graph: the page access token is missing")
	}
	g := &Graph{
		base: strings.TrimRight(opt.URL, "/"), token: opt.Token, now: opt.Now,
		http: &http.Client{
			Timeout:   graphTimeout,
			Transport: opt.Transport,
			// The token must not follow a redirect to somewhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "leads_graph_calls_total", Help: "Reads of a lead from the Graph API, by result: ok or the reason of the failure."}, []string{"result"}),
	}
	if g.now == nil {
		g.now = time.Now
	}
	if g.http.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = 64 // as many as are read at a time
		g.http.Transport = t
	}
	if opt.AppSecret != "" {
		// https://developers.facebook.com/docs/graph-api/guides/secure-requests
		mac := hmac.New(sha256.New, []byte(opt.AppSecret))
		mac.Write([]byte(opt.Token))
		g.proof = hex.EncodeToString(mac.Sum(nil))
	}
	if opt.Metrics != nil {
		opt.Metrics.MustRegister(g.calls)
	}
	return g, nil
}

// Close lets go of idle connections.
func (g *Graph) Close() { g.http.CloseIdleConnections() }

// A form is what Graph knows of a lead.
type form struct {
	ID          scalar `json:"id"`
	CreatedTime scalar `json:"created_time"` // 2026-11-23T08:30:00+0000
	AdID        scalar `json:"ad_id"`
	FormID      scalar `json:"form_id"`
	Fields      []struct {
		Name   scalar   `json:"name"`
		Values []scalar `json:"values"`
	} `json:"field_data"`
	Disclaimers []struct {
		Key     scalar `json:"checkbox_key"`
		Checked scalar `json:"is_checked"` // "1" or ""
	} `json:"custom_disclaimer_responses"`
}

// lead reads one lead. Its errors are outcomes: permanent "unknown" for a lead that
// Graph does not show, which may be too early rather than wrong; else as judge says.
// None of them holds the token, its proof, or anything that Graph wrote in words:
// its messages may quote the token.
func (g *Graph) lead(ctx context.Context, id string) (form, error) {
	f, err := g.read(ctx, id)
	result := "ok"
	if err != nil {
		result = string(outcome.Of(err).Reason)
	}
	g.calls.WithLabelValues(result).Inc()
	return f, err
}

func (g *Graph) read(ctx context.Context, id string) (form, error) {
	if wait := g.held(); wait > 0 {
		return form{}, outcome.Retry(outcome.RateLimited, wait, errors.New("a rate limit of Graph is not over"))
	}
	query := url.Values{"fields": {leadFields}}
	if g.proof != "" {
		query.Set("appsecret_proof", g.proof)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.base+"/"+url.PathEscape(id)+"?"+query.Encode(), nil)
	if err != nil {
		return form{}, outcome.Permanentf(outcome.Malformed, "building a call to Graph for a lead")
	}
	req.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := g.http.Do(req)
	if err != nil {
		return form{}, unanswered(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return form{}, unanswered(err)
	}
	if len(body) > maxAnswer {
		return form{}, outcome.Permanentf(outcome.Malformed, "the answer for the lead is longer than %d bytes", maxAnswer)
	}
	var answer struct {
		form
		Error struct {
			Code    int `json:"code"`
			Subcode int `json:"error_subcode"`
		} `json:"error"`
	}
	unreadable := json.Unmarshal(body, &answer)
	regain := regainAccess(resp.Header)
	if resp.StatusCode != http.StatusOK || answer.Error.Code != 0 {
		code, subcode := answer.Error.Code, answer.Error.Subcode
		kind, reason, advice := judge(resp.StatusCode, code, subcode)
		failure := &outcome.Error{Kind: kind, Reason: reason,
			Err: fmt.Errorf("reading the lead from Graph: %s (HTTP %d, code %d, subcode %d)", advice, resp.StatusCode, code, subcode)}
		if reason == outcome.RateLimited {
			failure.After = g.holdFor(max(regain, time.Minute))
		}
		return form{}, failure
	}
	g.holdFor(regain) // this was the last call that the limit allowed
	switch {
	case unreadable != nil:
		return form{}, outcome.Temporary(outcome.Malformed, errors.New("the answer for the lead is not readable"))
	case string(answer.ID) != id:
		return form{}, outcome.Temporary(outcome.Malformed, errors.New("the answer is about another lead"))
	case answer.Fields == nil:
		return form{}, outcome.Temporary(outcome.Malformed, errors.New("the answer has no field_data"))
	}
	return answer.form, nil
}

// judge sorts Graph's refusals. code and subcode are 0 where the answer had none, and
// then the HTTP status decides. Nearly all errors come with status 400.
//
//	temporary  1 2 (Graph's trouble) · 4 17 32 341 613 80000–80014 (too many calls) ·
//	           368 (blocked for a while) · 5xx · 429 · whatever is not listed
//	permanent  10 200–299 (the token may not read this lead) · 100/33 803 (no such lead)
//	blocked    102 104 190 401 (the token) · 3 12 100 2500 2635 3xx 404 405 (all calls of
//	           this form: version, fields, appsecret_proof)
//
// https://developers.facebook.com/docs/graph-api/guides/error-handling
func judge(status, code, subcode int) (outcome.Kind, outcome.Reason, string) {
	switch {
	case code == 190 || code == 102 || code == 104:
		return outcome.KindBlocked, outcome.Auth, "the token is refused; renew FACEBOOK_PAGE_ACCESS_TOKEN and restart consumers"
	case code == 4 || code == 17 || code == 32 || code == 341 || code == 613 || code >= 80000 && code <= 80014:
		return outcome.KindTemporary, outcome.RateLimited, "too many calls"
	case code == 1 || code == 2:
		return outcome.KindTemporary, outcome.Unavailable, "it has trouble"
	case code == 368:
		return outcome.KindTemporary, outcome.Refused, "it has blocked us for a while"
	case code == 10 || code >= 200 && code <= 299:
		return outcome.KindPermanent, outcome.Refused,
			"the token may not read it; grant leads_retrieval and, in Leads Access Manager, access to this app"
	case code == 100 && subcode == 33 || code == 803:
		return outcome.KindPermanent, outcome.Unknown, "it does not exist, or is hidden from the token"
	case code == 100 || code == 3 || code == 12 || code == 2500 || code == 2635:
		return outcome.KindBlocked, outcome.Refused,
			"all our calls are refused; check FACEBOOK_GRAPH_URL and that the first FACEBOOK_APP_SECRET is the app's"
	case code != 0:
		return outcome.KindTemporary, outcome.Unavailable, "an error that we do not know"
	case status == http.StatusUnauthorized:
		return outcome.KindBlocked, outcome.Auth, "the token is refused; renew FACEBOOK_PAGE_ACCESS_TOKEN and restart consumers"
	case status == http.StatusTooManyRequests:
		return outcome.KindTemporary, outcome.RateLimited, "too many calls"
	case status >= 300 && status <= 399 || status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		return outcome.KindBlocked, outcome.Refused, "this is not the Graph API; check FACEBOOK_GRAPH_URL"
	default:
		return outcome.KindTemporary, outcome.Unavailable, "it has trouble"
	}
}

// unanswered is the outcome of a call that got no whole answer. url.Error is taken
// apart because it quotes the URL, and with it the proof.
func unanswered(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var n net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout() {
		return outcome.Temporary(outcome.Timeout, errors.New("no answer from Graph in time"))
	}
	return outcome.Temporary(outcome.Unavailable, fmt.Errorf("no answer from Graph: %w", err))
}

// regainAccess is how long the usage header asks us to stay away: the longest of the
// minutes that it names; 0 without any. X-App-Usage has no such time.
// https://developers.facebook.com/docs/graph-api/overview/rate-limiting
func regainAccess(h http.Header) time.Duration {
	var usage map[string][]struct {
		Regain float64 `json:"estimated_time_to_regain_access"` // minutes
	}
	if err := json.Unmarshal([]byte(h.Get("X-Business-Use-Case-Usage")), &usage); err != nil {
		return 0 // absent, or not as documented
	}
	minutes := 0.0
	for _, of := range usage {
		for _, u := range of {
			minutes = max(minutes, u.Regain)
		}
	}
	return time.Duration(min(minutes, longestHold.Minutes()) * float64(time.Minute))
}

// held is how long calls have to wait; 0 or less: they need not.
func (g *Graph) held() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hold.Sub(g.now())
}

// holdFor makes calls wait for d, if they do not wait longer already, and gives d.
func (g *Graph) holdFor(d time.Duration) time.Duration {
	if d <= 0 {
		return d
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if until := g.now().Add(d); until.After(g.hold) {
		g.hold = until
	}
	return d
}
