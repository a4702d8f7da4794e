package twilio

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sign is X-Twilio-Signature: HMAC-SHA1, in base64, of the URL as Twilio knows it
// (without a fragment) and the form's names and values, sorted by name. Used by the
// stand-in and by tests of whatever verifies it.
// https://www.twilio.com/docs/usage/security#validating-requests
func Sign(authToken, rawURL string, form url.Values) string {
	mac := hmac.New(sha1.New, []byte(authToken))
	withoutFragment, _, _ := strings.Cut(rawURL, "#")
	io.WriteString(mac, withoutFragment)
	for _, k := range slices.Sorted(maps.Keys(form)) {
		for _, v := range form[k] {
			io.WriteString(mac, k+v)
		}
	}
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// A Reply is what a webhook was answered with.
type Reply struct {
	Status      int
	ContentType string
	Body        string // the first 64 KiB
}

// A Callback is one status callback that was sent.
type Callback struct {
	MessageSID string
	Status     string // the MessageStatus it told
	Answer     int    // the HTTP status it was answered with; 0: there was no answer
}

// Callbacks are the status callbacks that were sent, in the order of their answers.
// Twilio tells each once, whatever the answer.
func (s *Server) Callbacks() []Callback {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.callbacks)
}

// A step is one change of a text's status.
type step struct {
	status string
	code   int
}

// advance takes a step. The caller holds s.mu.
func (s *Server) advance(m *Message, st step) {
	m.Status, m.ErrorCode, m.Updated = st.status, st.code, time.Now()
	if m.From == "" {
		m.From = s.opt.Sender
	}
	if st.status == "sent" {
		m.Sent = m.Updated
	}
}

// walk takes a text through its steps and tells of each.
func (s *Server) walk(m *Message, steps []step) {
	defer s.walks.Done()
	var late []url.Values
	for _, st := range steps {
		s.sleep(s.opt.StepDelay)
		s.mu.Lock()
		s.advance(m, st)
		form := s.callbackForm(m)
		s.mu.Unlock()
		told := []url.Values{form}
		if s.opt.DuplicateCallbacks {
			told = append(told, form)
		}
		if s.opt.ShuffleCallbacks {
			late = append(late, told...)
			continue
		}
		s.tell(m, told)
	}
	s.mu.Lock()
	s.rng.Shuffle(len(late), func(i, j int) { late[i], late[j] = late[j], late[i] })
	s.mu.Unlock()
	s.tell(m, late)
}

func (s *Server) tell(m *Message, forms []url.Values) {
	if m.StatusCallback == "" || s.opt.MuteCallbacks {
		return
	}
	for _, form := range forms {
		reply, _ := s.post(context.Background(), m.StatusCallback, form) // no answer is recorded as 0
		s.mu.Lock()
		s.callbacks = append(s.callbacks, Callback{m.SID, form.Get("MessageStatus"), reply.Status})
		s.mu.Unlock()
	}
}

// callbackForm is what a status callback says. The caller holds s.mu.
func (s *Server) callbackForm(m *Message) url.Values {
	f := url.Values{
		"AccountSid": {s.opt.AccountSID}, "ApiVersion": {"2010-04-01"},
		"MessageSid": {m.SID}, "SmsSid": {m.SID},
		"MessageStatus": {m.Status}, "SmsStatus": {m.Status},
		"To": {m.To}, "From": {m.From},
	}
	if m.MessagingServiceSID != "" {
		f.Set("MessagingServiceSid", m.MessagingServiceSID)
	}
	if m.ErrorCode != 0 {
		f.Set("ErrorCode", strconv.Itoa(m.ErrorCode))
	}
	if m.Status == "delivered" {
		f.Set("RawDlrDoneDate", m.Updated.UTC().Format("0601021504"))
	}
	return f
}

// retries are how often a webhook is tried again, and after what, by its URL's fragment:
// "#rc=3&rp=ct,rt,5xx". By default once, after a connection that did not come about.
// https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides
func retries(rawURL string) (count int, after string) {
	count, after = 1, ",ct,"
	_, fragment, _ := strings.Cut(rawURL, "#")
	q, err := url.ParseQuery(fragment)
	if err != nil {
		return count, after
	}
	if n, err := strconv.Atoi(q.Get("rc")); err == nil && n >= 0 && n <= 5 {
		count = n
	}
	if q.Has("rp") {
		after = q.Get("rp")
	}
	return count, "," + after + ","
}

// post sends a signed webhook, and tries again where its URL asks for it.
func (s *Server) post(ctx context.Context, rawURL string, form url.Values) (Reply, error) {
	count, after := retries(rawURL)
	rawURL, _, _ = strings.Cut(rawURL, "#") // which is neither sent nor signed
	s.slots <- struct{}{}
	defer func() { <-s.slots }()
	s.mu.Lock()
	token := s.newID("")
	s.mu.Unlock()
	for attempt := 1; ; attempt++ {
		reply, err := s.postOnce(ctx, rawURL, form, token)
		var noConnection *net.OpError
		why := ""
		switch {
		case errors.As(err, &noConnection) && noConnection.Op == "dial":
			why = "ct"
		case err != nil:
			why = "rt"
		case reply.Status >= 500:
			why = "5xx"
		case reply.Status >= 400:
			why = "4xx"
		}
		if why == "" || attempt > count || !strings.Contains(after, ","+why+",") && after != ",all," {
			return reply, err
		}
		s.sleep(10 * time.Millisecond)
	}
}

func (s *Server) postOnce(ctx context.Context, rawURL string, form url.Values, token string) (Reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, rawURL, strings.NewReader(form.Encode()))
	if err != nil {
		return Reply{}, fmt.Errorf("building a webhook: %w", err)
	}
	req.Host = req.URL.Host
	if s.opt.DialURL != "" {
		dial, err := url.Parse(s.opt.DialURL)
		if err != nil {
			return Reply{}, fmt.Errorf("reading the dial URL: %w", err)
		}
		req.URL.Scheme, req.URL.Host = dial.Scheme, dial.Host
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	req.Header.Set("User-Agent", "TwilioProxy/1.1")
	req.Header.Set("I-Twilio-Idempotency-Token", token)
	req.Header.Set("X-Twilio-Signature", Sign(s.opt.AuthToken, rawURL, form))
	resp, err := s.client.Do(req)
	if err != nil {
		return Reply{}, fmt.Errorf("sending a webhook: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return Reply{}, fmt.Errorf("reading the answer to a webhook: %w", err)
	}
	return Reply{resp.StatusCode, resp.Header.Get("Content-Type"), string(body)}, nil
}

// StopKeywords are the texts that Twilio takes for an opt-out unless told otherwise.
// https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out
func StopKeywords() []string {
	return []string{"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"}
}

// An Inbound is a text that somebody sends to us.
type Inbound struct {
	From string // E.164
	Body string

	To         string // default Options.Sender
	MessageSID string // default: a new one; give one again to repeat a delivery
	OptOutType string // "STOP", "START" or "HELP" as Advanced Opt-Out adds it; default none
}

// Inbound delivers a text to Options.InboundURL and gives the edge's answer. An
// error means that there was none; Twilio would then have lost the text's webhook,
// since it neither tries again after a timeout nor after an answer of any status.
//
// As at Twilio a keyword has its effect on the block list, and is answered by Twilio,
// before the webhook is sent; and an answer of plain text or with a <Message> is
// texted to the sender (see Replies).
func (s *Server) Inbound(ctx context.Context, in Inbound) (Reply, error) {
	if in.To == "" {
		in.To = s.opt.Sender
	}
	form := s.receive(in)
	reply, err := s.post(ctx, s.opt.InboundURL, form)
	if err != nil {
		return Reply{}, fmt.Errorf("delivering an inbound text: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range reply.texts() {
		s.answer(in, text)
	}
	return reply, nil
}

// receive stores an inbound text, obeys its keyword and gives its webhook's fields.
func (s *Server) receive(in Inbound) url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	word := strings.ToUpper(strings.TrimSpace(in.Body))
	_, blocked := s.blocked[in.From]
	switch {
	case in.OptOutType == "STOP", s.opt.BlockOnStop && slices.Contains(StopKeywords(), word):
		s.blocked[in.From] = struct{}{}
		if !blocked {
			s.answer(in, "You are unsubscribed. Reply START to subscribe again.")
		}
	case in.OptOutType == "START", s.opt.BlockOnStop && (word == "START" || word == "UNSTOP" || word == "YES"):
		delete(s.blocked, in.From)
		if blocked {
			s.answer(in, "You are subscribed again. Reply STOP to unsubscribe.")
		}
	}
	m := &Message{SID: in.MessageSID, Direction: "inbound", To: in.To, From: in.From,
		Body: in.Body, Status: "received", Began: time.Now(), Sent: time.Now()}
	if _, again := s.bySID[in.MessageSID]; !again {
		s.keep(m)
	}
	f := url.Values{
		"MessageSid": {m.SID}, "SmsSid": {m.SID}, "SmsMessageSid": {m.SID},
		"AccountSid": {s.opt.AccountSID}, "ApiVersion": {"2010-04-01"},
		"From": {in.From}, "To": {in.To}, "Body": {in.Body},
		"NumMedia": {"0"}, "NumSegments": {strconv.Itoa(segments(in.Body))}, "SmsStatus": {"received"},
		"FromCountry": {"FR"}, "FromState": {""}, "FromCity": {""}, "FromZip": {""},
		"ToCountry": {"FR"}, "ToState": {""}, "ToCity": {""}, "ToZip": {""},
	}
	if in.OptOutType != "" {
		f.Set("OptOutType", in.OptOutType)
	}
	return f
}

// answer sends a text back to whoever wrote. The caller holds s.mu.
func (s *Server) answer(in Inbound, text string) {
	now := time.Now()
	s.keep(&Message{Direction: "outbound-reply", To: in.From, From: in.To, Body: text,
		Status: "delivered", Began: now, Sent: now})
}

// texts is what Twilio would text to the sender because of an answer.
func (r Reply) texts() []string {
	if r.Status < 200 || r.Status > 299 || r.Body == "" {
		return nil
	}
	switch kind, _, _ := mime.ParseMediaType(r.ContentType); kind {
	case "text/plain":
		return []string{r.Body}
	case "text/xml", "application/xml", "text/html":
		var twiml struct {
			Message []string `xml:"Message"`
		}
		if xml.Unmarshal([]byte(r.Body), &twiml) == nil {
			return twiml.Message
		}
	}
	return nil
}
