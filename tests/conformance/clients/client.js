// Drives wukongimjssdk: commands in, events out, a JSON object a line.
// The package is published as ES modules without extensions, hence jiti.
const readline = require('readline');

globalThis.WebSocket = require('ws');
console.log = () => {}; // the client logs; standard output is ours

const WKSDK = require('jiti')(__filename)('wukongimjssdk').default;

const say = (event) => process.stdout.write(JSON.stringify(event) + '\n');
const sdk = WKSDK.shared();

sdk.connectManager.addConnectStatusListener((status, reason) => say({ event: 'status', status, reason }));
sdk.chatManager.addMessageListener((message) =>
  say({
    event: 'message',
    from: message.fromUID,
    channel: message.channel.channelID,
    type: message.channel.channelType,
    seq: message.messageSeq,
    id: String(message.messageID),
    text: message.content && message.content.text,
    sent: message.send,
  }));
sdk.chatManager.addMessageStatusListener((ack) =>
  say({ event: 'ack', clientSeq: ack.clientSeq, seq: ack.messageSeq, reason: ack.reasonCode }));

const commands = {
  connect({ addr, uid, token }) {
    sdk.config.uid = uid;
    sdk.config.token = token;
    sdk.config.deviceFlag = 1;
    sdk.config.provider.connectAddrCallback = (callback) => callback(addr);
    sdk.connect();
  },
  send({ channel, type, text }) {
    sdk.chatManager.send(sdk.newMessageText(text), sdk.newChannel(channel, type));
  },
  quit() {
    sdk.disconnect();
    process.exit(0);
  },
};

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
}).on('close', () => process.exit(0));
say({ event: 'ready' });
