// Echo on /echo; what comes on /speak goes to all on /follow, then back. ws.js PORT
'use strict';
const { WebSocketServer } = require('ws');

const followers = new Set();
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]) });

server.on('connection', (socket, request) => {
  socket.on('error', () => {});
  if (request.url === '/follow') {
    followers.add(socket);
    socket.on('close', () => followers.delete(socket));
  }
  socket.on('message', (data, binary) => {
    if (request.url === '/speak') {
      for (const follower of followers) follower.send(data, { binary });
    }
    socket.send(data, { binary });
  });
});
